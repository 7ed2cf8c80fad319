#define _GNU_SOURCE
#include "clinux.h"

#include <fcntl.h>

static struct flock range(off_t offset, off_t length, short type) {
  return (struct flock){
      .l_type = type, .l_whence = SEEK_SET, .l_start = offset, .l_len = length, .l_pid = 0};
}

int clinux_ofd_lock(int fd, off_t offset, off_t length, int write) {
  struct flock lock = range(offset, length, write ? F_WRLCK : F_RDLCK);
  return fcntl(fd, F_OFD_SETLK, &lock);
}

int clinux_ofd_unlock(int fd, off_t offset, off_t length) {
  struct flock lock = range(offset, length, F_UNLCK);
  return fcntl(fd, F_OFD_SETLK, &lock);
}

int clinux_ofd_conflict(int fd, off_t offset, off_t length) {
  struct flock lock = range(offset, length, F_WRLCK);
  if (fcntl(fd, F_OFD_GETLK, &lock) != 0) return -1;
  return lock.l_type != F_UNLCK;
}
