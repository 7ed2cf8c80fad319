// libmicrohttpd and, as plain functions, the few of its calls that are variadic in C.
#ifndef PLOOPD_CMICROHTTPD_H
#define PLOOPD_CMICROHTTPD_H

#include <microhttpd.h>

// What the daemon tells, always with `context` first.
struct cmicrohttpd_callbacks {
  void *context;
  // The request target as it came; what is returned becomes the request's slot.
  void *(*target)(void *context, const char *target, struct MHD_Connection *connection);
  MHD_AccessHandlerCallback request;
  // A request is over, however it ended.
  MHD_RequestCompletedCallback completed;
  MHD_NotifyConnectionCallback connection;
};

struct cmicrohttpd_limits {
  unsigned int connections;
  unsigned int connections_per_address; // 0: no limit
  unsigned int idle_seconds;
  unsigned int threads; // that share the connections, at least 1
  size_t head_bytes; // room for a request's line and headers, twice
};

// Texts in PEM, which have to stay as long as the daemon.
struct cmicrohttpd_tls {
  const char *certificate; // NULL: no TLS
  const char *key;
  const char *authorities; // NULL: clients are not asked for certificates
};

// A daemon with threads of its own that serves clients of a listening socket and can suspend
// connections.
struct MHD_Daemon *cmicrohttpd_start(int listening_socket,
                                     const struct cmicrohttpd_callbacks *callbacks,
                                     const struct cmicrohttpd_limits *limits,
                                     const struct cmicrohttpd_tls *tls);

// Whether the library was built with TLS.
int cmicrohttpd_has_tls(void);

// How many connections a daemon has.
unsigned int cmicrohttpd_connections(struct MHD_Daemon *daemon);

// The connection's socket, or -1.
int cmicrohttpd_descriptor(struct MHD_Connection *connection);

// What the connection's slot has held since the callback that told of it, or NULL.
void *cmicrohttpd_slot(struct MHD_Connection *connection);

// The connection's session of GnuTLS, or NULL without TLS.
struct gnutls_session_int *cmicrohttpd_session(struct MHD_Connection *connection);

// Makes a response of unknown size one that is fit to be an answer to HEAD: it is not sent in chunks,
// whose end the library (0.9.75) would send although there is no body; the connection ends instead.
void cmicrohttpd_head_only(struct MHD_Response *response);

#endif
