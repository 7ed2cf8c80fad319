#define _GNU_SOURCE
#include "clinux.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>
#include <unistd.h>

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

int clinux_vsock(unsigned port) {
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return -1;
  struct sockaddr_vm address = {
      .svm_family = AF_VSOCK,
      .svm_cid = VMADDR_CID_ANY,
      .svm_port = port == 0 ? VMADDR_PORT_ANY : port};
  if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0) {
    int reason = errno;
    close(fd);
    errno = reason;
    return -1;
  }
  return fd;
}

static int vsock_address(
    int (*ask)(int, struct sockaddr *restrict, socklen_t *restrict), int fd, struct clinux_vsock *found) {
  struct sockaddr_storage storage;
  socklen_t size = sizeof storage;
  if (ask(fd, (struct sockaddr *)&storage, &size) != 0) return -1;
  if (storage.ss_family != AF_VSOCK) {
    errno = ENOTSUP;
    return -1;
  }
  const struct sockaddr_vm *address = (const struct sockaddr_vm *)&storage;
  *found = (struct clinux_vsock){.machine = address->svm_cid, .port = address->svm_port};
  return 0;
}

int clinux_vsock_bound(int fd, struct clinux_vsock *found) { return vsock_address(getsockname, fd, found); }

int clinux_vsock_peer(int fd, struct clinux_vsock *found) { return vsock_address(getpeername, fd, found); }

unsigned clinux_vsock_own(void) {
  unsigned machine = VMADDR_CID_HOST;
  int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return machine;
  if (ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &machine) != 0) machine = VMADDR_CID_HOST;
  close(fd);
  return machine;
}

int clinux_bell(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

void clinux_bell_ring(int fd) { (void)eventfd_write(fd, 1); }

void clinux_bell_silence(int fd) {
  eventfd_t count;
  (void)eventfd_read(fd, &count);
}
