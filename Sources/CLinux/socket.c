#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

int clinux_peer_credentials(int fd, struct clinux_peer *peer) {
  int family = 0;
  socklen_t size = sizeof family;
  if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) != 0) return -1;
  if (family != AF_UNIX) {
    errno = ENOTSUP;
    return -1;
  }
  struct ucred credentials;
  size = sizeof credentials;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &credentials, &size) != 0) return -1;
  *peer = (struct clinux_peer){
      .pid = credentials.pid, .uid = credentials.uid, .gid = credentials.gid};
  return 0;
}

ssize_t clinux_send_file(int socket, int fd, off_t offset, size_t length) {
  return sendfile(socket, fd, &offset, length);
}

int clinux_unread(int socket) {
  int bytes = 0;
  return ioctl(socket, SIOCOUTQ, &bytes) == 0 ? bytes : -1;
}

int clinux_accept(int fd) { return accept4(fd, NULL, NULL, SOCK_CLOEXEC); }

int clinux_bell(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

void clinux_bell_ring(int fd) { (void)eventfd_write(fd, 1); }

void clinux_bell_silence(int fd) {
  eventfd_t count;
  (void)eventfd_read(fd, &count);
}
