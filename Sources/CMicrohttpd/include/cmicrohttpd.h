// libmicrohttpd and, as plain functions, the few of its calls that are variadic in C.
#ifndef PLOOPD_CMICROHTTPD_H
#define PLOOPD_CMICROHTTPD_H

#include <microhttpd.h>

// A daemon with a thread of its own that serves clients of a listening socket and can suspend
// connections. `completed` is told when a request is over, however it ended.
struct MHD_Daemon *cmicrohttpd_start(int listening_socket, MHD_AccessHandlerCallback handler,
                                     MHD_RequestCompletedCallback completed, void *context,
                                     unsigned int connection_limit, unsigned int timeout_seconds);

#endif
