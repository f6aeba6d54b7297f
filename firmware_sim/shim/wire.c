/* Bytes of a USB/IP session, and its beginning. */
#include "shim.h"

enum { USBIP_VERSION = 0x0111, OP_REQ_IMPORT = 0x8003, ST_BUSY = 2, RECORD_BYTES = 312 };

bool shim_receive(int sock, void *to, size_t n)
{
    uint8_t *p = to;
    while (n) {
        ssize_t got = recv(sock, p, n, MSG_WAITALL);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return false;
        p += got;
        n -= (size_t)got;
    }
    return true;
}

bool shim_transmit(int sock, const void *head, size_t head_n, const void *body, size_t body_n)
{
    struct iovec iov[2] = {{(void *)head, head_n}, {(void *)body, body_n}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = body_n ? 2 : 1};
    while (msg.msg_iovlen) {
        ssize_t sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return false;
        while (msg.msg_iovlen && (size_t)sent >= msg.msg_iov->iov_len) {
            sent -= (ssize_t)msg.msg_iov->iov_len;
            msg.msg_iov++;
            msg.msg_iovlen--;
        }
        if (msg.msg_iovlen) {
            msg.msg_iov->iov_base = (uint8_t *)msg.msg_iov->iov_base + sent;
            msg.msg_iov->iov_len -= (size_t)sent;
        }
    }
    return true;
}

bool shim_discard(int sock, size_t n)
{
    char sink[4096];
    while (n) {
        size_t part = n < sizeof sink ? n : sizeof sink;
        if (!shim_receive(sock, sink, part))
            return false;
        n -= part;
    }
    return true;
}

int shim_import(const char *busid, struct node *n)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strcpy(a.sun_path, shim_sock);
    int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return -1;
    uint8_t request[40] = {USBIP_VERSION >> 8, USBIP_VERSION & 255, OP_REQ_IMPORT >> 8, OP_REQ_IMPORT & 255};
    uint8_t reply[8], record[RECORD_BYTES];
    memcpy(request + 8, busid, strnlen(busid, 31));
    if (connect(s, (struct sockaddr *)&a, sizeof a) || !shim_transmit(s, request, sizeof request, NULL, 0) ||
        !shim_receive(s, reply, sizeof reply))
        goto gone;
    uint32_t status, word[3];
    memcpy(&status, reply + 4, 4);
    status = be32toh(status);
    if (status == ST_BUSY) {
        REAL(close)(s);
        n->sock = -1;
        return 0;
    }
    if (status || !shim_receive(s, record, sizeof record))
        goto gone;
    memcpy(word, record + 288, sizeof word);
    if (be32toh(word[0]) != n->busnum || be32toh(word[1]) != n->devnum)
        goto gone; /* it has re-enumerated since the node was looked up */
    n->devid = n->busnum << 16 | n->devnum;
    n->speed = be32toh(word[2]);
    n->sock = s;
    return 0;
gone:
    REAL(close)(s);
    errno = ENODEV;
    return -1;
}
