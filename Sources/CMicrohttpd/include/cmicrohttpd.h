// libmicrohttpd and, as plain functions, the few of its calls that are variadic in C; and what is asked
// of GnuTLS about its connections.
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
  size_t head_bytes; // room for a request's line and headers, twice
};

// Texts in PEM, which have to stay as long as the daemon.
struct cmicrohttpd_tls {
  const char *certificate; // NULL: no TLS
  const char *key;
  const char *authorities; // NULL: clients are not asked for certificates
};

// A daemon with a thread of its own that serves clients of a listening socket and can suspend
// connections.
struct MHD_Daemon *cmicrohttpd_start(int listening_socket,
                                     const struct cmicrohttpd_callbacks *callbacks,
                                     const struct cmicrohttpd_limits *limits,
                                     const struct cmicrohttpd_tls *tls);

// NULL where a daemon can use these, else what is wrong with them.
const char *cmicrohttpd_tls_fault(const struct cmicrohttpd_tls *tls);

// How many connections a daemon has.
unsigned int cmicrohttpd_connections(struct MHD_Daemon *daemon);

// The connection's socket, or -1.
int cmicrohttpd_descriptor(struct MHD_Connection *connection);

// What is known of the other end's certificate.
enum cmicrohttpd_client {
  CMICROHTTPD_NO_CERTIFICATE,
  // Of another authority, for another use, expired or not yet valid.
  CMICROHTTPD_UNTRUSTED,
  CMICROHTTPD_TRUSTED,
};

// Verifies the client's certificate, and calls `name` with each of the names it is for: the common name
// and the alternative ones that are DNS names, mail addresses or URIs.
enum cmicrohttpd_client cmicrohttpd_verify_client(struct MHD_Connection *connection,
                                           void (*name)(void *context, const char *bytes,
                                                        size_t count),
                                           void *context);

// Makes a response of unknown size one that is fit to be an answer to HEAD: it is not sent in chunks,
// whose end the library (0.9.75) would send although there is no body; the connection ends instead.
void cmicrohttpd_head_only(struct MHD_Response *response);

#endif
