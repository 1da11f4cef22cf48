/* Preloaded: file systems that lack something, below the folder LACKING_ROOT.

   LACKING names what is lacking, separated by commas:
   folder_fsync  fsync of a folder answers EINVAL          (SMB, FUSE)
   chmod         a change of modes answers EPERM           (exFAT, CIFS, mounts of object stores)
   unlink_open   a deleted file stays as .nfs... until its folder is looked at again (NFS)
   flock         flock answers ENOLCK                      (NFS without a lock daemon, some FUSE)
   mmap          mapping a file answers ENODEV             (some FUSE)
   link          hard and symbolic links answer EPERM      (exFAT, CIFS)
   inotify       watching answers ENOSYS
   space         once the file LACKING_ROOT.full exists, writing answers ENOSPC                  */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static int lacks(const char *what)
{
    const char *list = getenv("LACKING");
    size_t length = strlen(what);
    for (const char *at = list; at && (at = strstr(at, what)); at += length)
        if ((at == list || at[-1] == ',') && (at[length] == ',' || !at[length]))
            return 1;
    return 0;
}

static int path_is_below(const char *path)
{
    const char *root = getenv("LACKING_ROOT");
    char whole[2 * PATH_MAX];
    if (!root)
        return 0;
    if (path[0] != '/') {
        char here[PATH_MAX];
        if (!getcwd(here, sizeof here))
            return 0;
        snprintf(whole, sizeof whole, "%s/%s", here, path);
        path = whole;
    }
    size_t length = strlen(root);
    return !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static int path_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return 1;
}

static int is_below(int descriptor)
{
    char path[PATH_MAX];
    return path_of(descriptor, path) && path_is_below(path);
}

static int entry_is_below(int folder, const char *path)
{
    return path[0] == '/' || folder == AT_FDCWD ? path_is_below(path) : is_below(folder);
}

static int fail(int code)
{
    errno = code;
    return -1;
}

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

int fsync(int descriptor)
{
    struct stat status;
    if (lacks("folder_fsync") && !fstat(descriptor, &status) && S_ISDIR(status.st_mode) &&
        is_below(descriptor))
        return fail(EINVAL);
    return REAL("fsync", int (*)(int))(descriptor);
}

int chmod(const char *path, mode_t mode)
{
    if (lacks("chmod") && path_is_below(path))
        return fail(EPERM);
    return REAL("chmod", int (*)(const char *, mode_t))(path, mode);
}

int fchmod(int descriptor, mode_t mode)
{
    if (lacks("chmod") && is_below(descriptor))
        return fail(EPERM);
    return REAL("fchmod", int (*)(int, mode_t))(descriptor, mode);
}

int fchmodat(int folder, const char *path, mode_t mode, int flags)
{
    if (lacks("chmod") && entry_is_below(folder, path))
        return fail(EPERM);
    return REAL("fchmodat", int (*)(int, const char *, mode_t, int))(folder, path, mode, flags);
}

int flock(int descriptor, int operation)
{
    if (lacks("flock") && is_below(descriptor))
        return fail(ENOLCK);
    return REAL("flock", int (*)(int, int))(descriptor, operation);
}

void *mmap(void *at, size_t length, int protection, int flags, int descriptor, off_t offset)
{
    if (descriptor >= 0 && lacks("mmap") && is_below(descriptor)) {
        errno = ENODEV;
        return MAP_FAILED;
    }
    return REAL("mmap", void *(*)(void *, size_t, int, int, int, off_t))(
        at, length, protection, flags, descriptor, offset);
}

void *mmap64(void *at, size_t length, int protection, int flags, int descriptor, off64_t offset)
{
    return mmap(at, length, protection, flags, descriptor, offset);
}

int link(const char *from, const char *to)
{
    if (lacks("link") && path_is_below(to))
        return fail(EPERM);
    return REAL("link", int (*)(const char *, const char *))(from, to);
}

int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags)
{
    if (lacks("link") && entry_is_below(to_folder, to))
        return fail(EPERM);
    return REAL("linkat", int (*)(int, const char *, int, const char *, int))(
        from_folder, from, to_folder, to, flags);
}

int symlink(const char *content, const char *path)
{
    if (lacks("link") && path_is_below(path))
        return fail(EPERM);
    return REAL("symlink", int (*)(const char *, const char *))(content, path);
}

int inotify_init1(int flags)
{
    return lacks("inotify") ? fail(ENOSYS) : REAL("inotify_init1", int (*)(int))(flags);
}

/* Of a folder that is being deleted, the file of weights stays, as one that somebody reads. */
int unlinkat(int folder, const char *path, int flags)
{
    char where[PATH_MAX], name[64];
    if (lacks("unlink_open") && !(flags & AT_REMOVEDIR) && folder != AT_FDCWD &&
        strstr(path, ".safetensors") && path_of(folder, where) && path_is_below(where) &&
        strstr(where, ".deleting-")) {
        snprintf(name, sizeof name, ".nfs%012ld", random());
        return renameat(folder, path, folder, name);
    }
    return REAL("unlinkat", int (*)(int, const char *, int))(folder, path, flags);
}

static int is_full(int descriptor)
{
    char mark[PATH_MAX + 8];
    const char *root = getenv("LACKING_ROOT");
    if (!root || !lacks("space") || !is_below(descriptor))
        return 0;
    snprintf(mark, sizeof mark, "%s.full", root);
    return !access(mark, F_OK);
}

ssize_t write(int descriptor, const void *data, size_t length)
{
    if (length && is_full(descriptor))
        return fail(ENOSPC);
    return REAL("write", ssize_t (*)(int, const void *, size_t))(descriptor, data, length);
}

ssize_t pwrite(int descriptor, const void *data, size_t length, off_t offset)
{
    if (length && is_full(descriptor))
        return fail(ENOSPC);
    return REAL("pwrite", ssize_t (*)(int, const void *, size_t, off_t))(
        descriptor, data, length, offset);
}

ssize_t pwrite64(int descriptor, const void *data, size_t length, off64_t offset)
{
    return pwrite(descriptor, data, length, offset);
}

ssize_t writev(int descriptor, const struct iovec *parts, int count)
{
    if (is_full(descriptor))
        return fail(ENOSPC);
    return REAL("writev", ssize_t (*)(int, const struct iovec *, int))(descriptor, parts, count);
}
