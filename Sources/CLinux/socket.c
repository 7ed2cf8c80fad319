#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
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

int clinux_unsent_bytes(int fd) {
  int bytes = 0;
  return ioctl(fd, SIOCOUTQ, &bytes) == 0 ? bytes : -1;
}
