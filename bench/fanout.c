// SPDX-License-Identifier: Apache-2.0
// fanout.c -- both ends of the publisher's bench, on sockets that are inherited.
//
//   fanout read BYTES FD...          reads BYTES from each (or until it ends) in one epoll loop; prints the seconds from
//                                    its first byte to its last
//   fanout send FRAMES LENGTH FD...  the peer: one frame after the other, one blocking send per subscriber
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int send_all(int frames, size_t length, int n, char **fds) {
    uint8_t *frame = calloc(1, length);
    for (int f = 0; f < frames; f++) {
        memcpy(frame, &f, sizeof f);
        for (int i = 0; i < n; i++)
            for (size_t at = 0; at < length;) {
                const ssize_t k = send(atoi(fds[i]), frame + at, length - at, MSG_NOSIGNAL);
                if (k < 0 && errno != EINTR) return 4;
                at += k > 0 ? (size_t)k : 0;
            }
    }
    return 0;
}

static int read_all(long long bytes, int n, char **fds) {
    static uint8_t buffer[1 << 20];
    const int ep = epoll_create1(0);
    long long *left = calloc((size_t)n, sizeof *left);
    int open = n;
    double begun = 0, ended = 0;
    for (int i = 0; i < n; i++) {
        struct epoll_event e = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
        left[i] = bytes;
        if (epoll_ctl(ep, EPOLL_CTL_ADD, atoi(fds[i]), &e)) return 5;
    }
    while (open) {
        struct epoll_event ev[64];
        const int k = epoll_wait(ep, ev, 64, 20000);
        if (k <= 0) return 6;
        for (int j = 0; j < k; j++) {
            const uint32_t i = ev[j].data.u32;
            const int fd = atoi(fds[i]);
            const ssize_t got = recv(fd, buffer, sizeof buffer, MSG_DONTWAIT);
            if (got < 0) continue;
            ended = now();
            if (begun == 0) begun = ended;
            left[i] -= got;
            if (got == 0 || left[i] <= 0) {
                epoll_ctl(ep, EPOLL_CTL_DEL, fd, NULL);
                open--;
                if (left[i] > 0) return 7;
            }
        }
    }
    printf("%.6f\n", ended - begun);
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 3 && !strcmp(argv[1], "read")) return read_all(atoll(argv[2]), argc - 3, argv + 3);
    if (argc > 4 && !strcmp(argv[1], "send")) return send_all(atoi(argv[2]), (size_t)atol(argv[3]), argc - 4, argv + 4);
    fprintf(stderr, "usage: fanout read BYTES FD... | send FRAMES LENGTH FD...\n");
    return 2;
}
