// Preloaded into a process, records in order what it does to the files under one folder: every write with its bytes,
// every change of names and sizes, the beginning and end of every sync. tests/log_power_cut.rs replays the record to
// what a disk may hold after a power cut. sync_file_range is not recorded: it is no barrier.
//
// Record: one line per event, paths relative to the folder ("." is itself), fields separated by tabs;
// W and K are followed by so many bytes.
//   C path          file created          D path          folder created      U path          unlinked
//   W path off len  bytes written         T path size     size set            R from to       renamed
//   B path          sync begins           E path number   sync ended that began as event number `number`
//   K len           bytes written to the file of acknowledgements
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_FD 4096
#define ACKS "\001acks"

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[MAX_FD];
static FILE *record;
static const char *folder, *acks;
static size_t folder_length;
static long events;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void start(void) {
  if (record) return;
  folder = getenv("KOPURO_SHIM_FOLDER");
  acks = getenv("KOPURO_SHIM_ACKS");
  folder_length = strlen(folder);
  int (*real_open)(const char *, int, ...) = (int (*)(const char *, int, ...))dlsym(RTLD_NEXT, "open");
  record = fdopen(real_open(getenv("KOPURO_SHIM_RECORD"), O_WRONLY | O_CREAT | O_TRUNC, 0600), "w");
}

// The path within the folder, or NULL where it is not there.
static const char *within(const char *path) {
  start();
  if (!strcmp(path, acks)) return ACKS;
  if (strncmp(path, folder, folder_length)) return NULL;
  if (!path[folder_length]) return ".";
  return path[folder_length] == '/' ? path + folder_length + 1 : NULL;
}

static const char *of(int fd) { return fd >= 0 && fd < MAX_FD ? paths[fd] : NULL; }

static int do_open(const char *symbol, int at, const char *path, int flags, mode_t mode) {
  int (*real)(int, const char *, int, ...) = (int (*)(int, const char *, int, ...))dlsym(RTLD_NEXT, symbol);
  pthread_mutex_lock(&lock);
  const char *name = within(path);
  int created = name && (flags & O_CREAT) && access(path, F_OK);
  int fd = real(at, path, flags, mode);
  if (fd >= 0 && fd < MAX_FD) {
    free(paths[fd]);
    paths[fd] = name ? strdup(name) : NULL;
    if (name && strcmp(name, ACKS)) {
      if (created) events++, fprintf(record, "C\t%s\n", name);
      else if (flags & O_TRUNC) events++, fprintf(record, "T\t%s\t0\n", name);
    }
  }
  pthread_mutex_unlock(&lock);
  return fd;
}

#define MODE \
  mode_t mode = 0; \
  if (flags & O_CREAT) { va_list list; va_start(list, flags); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE return do_open("openat", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open("openat", AT_FDCWD, path, flags, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return do_open("openat", at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return do_open("openat", at, path, flags, mode); }

int close(int fd) {
  pthread_mutex_lock(&lock);
  if (of(fd)) free(paths[fd]), paths[fd] = NULL;
  pthread_mutex_unlock(&lock);
  return REAL(close)(fd);
}

static void wrote(const char *path, const void *bytes, off_t offset, ssize_t length) {
  if (length <= 0) return;
  events++;
  if (!strcmp(path, ACKS)) fprintf(record, "K\t%zd\n", length);
  else fprintf(record, "W\t%s\t%lld\t%zd\n", path, (long long)offset, length);
  fwrite(bytes, 1, length, record);
}

ssize_t write(int fd, const void *bytes, size_t length) {
  ssize_t (*real)(int, const void *, size_t) = REAL(write);
  if (!of(fd)) return real(fd, bytes, length);
  pthread_mutex_lock(&lock);
  ssize_t done = real(fd, bytes, length);
  if (of(fd)) wrote(of(fd), bytes, lseek(fd, 0, SEEK_CUR) - done, done);
  pthread_mutex_unlock(&lock);
  return done;
}

static ssize_t do_pwrite(int fd, const void *bytes, size_t length, off_t offset) {
  ssize_t (*real)(int, const void *, size_t, off_t) = REAL(pwrite);
  if (!of(fd)) return real(fd, bytes, length, offset);
  pthread_mutex_lock(&lock);
  ssize_t done = real(fd, bytes, length, offset);
  wrote(of(fd), bytes, offset, done);
  pthread_mutex_unlock(&lock);
  return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return do_pwrite(fd, bytes, length, offset); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) { return do_pwrite(fd, bytes, length, offset); }

static int sized(int fd, off_t size) {
  int (*real)(int, off_t) = REAL(ftruncate);
  pthread_mutex_lock(&lock);
  int result = real(fd, size);
  if (of(fd) && !result) events++, fprintf(record, "T\t%s\t%lld\n", of(fd), (long long)size);
  pthread_mutex_unlock(&lock);
  return result;
}
int ftruncate(int fd, off_t size) { return sized(fd, size); }
int ftruncate64(int fd, off64_t size) { return sized(fd, size); }

// Growing only, as posix_fallocate does.
static int allocated(int fd, off_t end) {
  struct stat now;
  return !fstat(fd, &now) && now.st_size < end ? sized(fd, end) : 0;
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return mode ? -1 : allocated(fd, offset + length); }
int fallocate64(int fd, int mode, off64_t offset, off64_t length) { return mode ? -1 : allocated(fd, offset + length); }
int posix_fallocate(int fd, off_t offset, off_t length) { return allocated(fd, offset + length); }
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return allocated(fd, offset + length); }

static int synced(int (*real)(int), int fd) {
  pthread_mutex_lock(&lock);
  char *path = of(fd) ? strdup(of(fd)) : NULL;
  long began = events;
  if (path) events++, fprintf(record, "B\t%s\n", path);
  pthread_mutex_unlock(&lock);
  int result = real(fd);
  pthread_mutex_lock(&lock);
  if (path && !result) events++, fprintf(record, "E\t%s\t%ld\n", path, began);
  pthread_mutex_unlock(&lock);
  free(path);
  return result;
}
int fsync(int fd) { return synced(REAL(fsync), fd); }
int fdatasync(int fd) { return synced(REAL(fdatasync), fd); }

static void named(char event, const char *path) {
  const char *name = within(path);
  if (name) events++, fprintf(record, "%c\t%s\n", event, name);
}

int mkdir(const char *path, mode_t mode) {
  int (*real)(const char *, mode_t) = REAL(mkdir);
  pthread_mutex_lock(&lock);
  int result = real(path, mode);
  if (!result) named('D', path);
  pthread_mutex_unlock(&lock);
  return result;
}

int unlink(const char *path) {
  int (*real)(const char *) = REAL(unlink);
  pthread_mutex_lock(&lock);
  int result = real(path);
  if (!result) named('U', path);
  pthread_mutex_unlock(&lock);
  return result;
}

int rename(const char *from, const char *to) {
  int (*real)(const char *, const char *) = REAL(rename);
  pthread_mutex_lock(&lock);
  int result = real(from, to);
  const char *old = within(from), *new = within(to);
  if (!result && old && new) events++, fprintf(record, "R\t%s\t%s\n", old, new);
  pthread_mutex_unlock(&lock);
  return result;
}

__attribute__((destructor)) static void finish(void) { if (record) fflush(record); }
