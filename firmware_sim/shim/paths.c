/* The C library's ways to a path: what lies below /sys/bus/usb and /dev/bus/usb is looked up in our tree, and a device
 * node is opened by node.c. */
#include "shim.h"

char shim_root[PATH_MAX], shim_sock[sizeof(((struct sockaddr_un *)0)->sun_path)];

__attribute__((constructor)) static void read_environment(void)
{
    const char *r = getenv("USBSHIM_ROOT"), *s = getenv("USBSHIM_SOCK");
    if (!r || !s || strlen(r) >= sizeof shim_root - NAME_MAX || strlen(s) >= sizeof shim_sock)
        return;
    strcpy(shim_root, r);
    strcpy(shim_sock, s);
}

static bool below(const char *path, const char *top)
{
    size_t n = strlen(top);
    return !strncmp(path, top, n) && (path[n] == '/' || path[n] == 0);
}

/* `path`, or its place below $USBSHIM_ROOT written into `buf`. */
const char *shim_redirect(const char *path, char buf[PATH_MAX])
{
    if (!shim_root[0] || !path || (!below(path, "/sys/bus/usb") && !below(path, "/dev/bus/usb")))
        return path;
    if ((size_t)snprintf(buf, PATH_MAX, "%s%s", shim_root, path) >= PATH_MAX)
        return path;
    return buf;
}

bool shim_is_node(const char *path, unsigned *bus, unsigned *dev)
{
    char rest;
    return shim_root[0] && path && sscanf(path, "/dev/bus/usb/%3u/%3u%c", bus, dev, &rest) == 2;
}

static int open_at(int dir, const char *path, int flags, mode_t mode)
{
    char at[PATH_MAX];
    unsigned bus, dev;
    if (shim_is_node(path, &bus, &dev) && !(flags & (O_DIRECTORY | O_PATH)))
        return shim_open(path, flags, bus, dev);
    return REAL(openat)(dir, shim_redirect(path, at), flags, mode);
}

#define MODE(flags)                                                                                                    \
    ({                                                                                                                 \
        mode_t m_ = 0;                                                                                                 \
        if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                         \
            va_list va_;                                                                                               \
            va_start(va_, flags);                                                                                      \
            m_ = va_arg(va_, mode_t);                                                                                  \
            va_end(va_);                                                                                               \
        }                                                                                                              \
        m_;                                                                                                            \
    })

int open(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int open64(const char *path, int flags, ...) { return open_at(AT_FDCWD, path, flags, MODE(flags)); }
int openat(int dir, const char *path, int flags, ...) { return open_at(dir, path, flags, MODE(flags)); }
int openat64(int dir, const char *path, int flags, ...) { return open_at(dir, path, flags, MODE(flags)); }
/* what fortified callers are compiled into */
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __openat_2(int dir, const char *path, int flags) { return open_at(dir, path, flags, 0); }
int __openat64_2(int dir, const char *path, int flags) { return open_at(dir, path, flags, 0); }

DIR *opendir(const char *path)
{
    char at[PATH_MAX];
    return REAL(opendir)(shim_redirect(path, at));
}

ssize_t readlink(const char *restrict path, char *restrict to, size_t room)
{
    char at[PATH_MAX];
    return REAL(readlink)(shim_redirect(path, at), to, room);
}

int access(const char *path, int mode)
{
    char at[PATH_MAX];
    return REAL(access)(shim_redirect(path, at), mode);
}

/* libusb uses sysfs only where /sys is one; a container may have none. */
int statfs(const char *path, struct statfs *to)
{
    char at[PATH_MAX];
    int r = REAL(statfs)(shim_redirect(path, at), to);
    if (shim_root[0] && !strcmp(path, "/sys")) {
        if (r)
            memset(to, 0, sizeof *to);
        to->f_type = SYSFS_MAGIC;
        r = 0;
    }
    return r;
}
