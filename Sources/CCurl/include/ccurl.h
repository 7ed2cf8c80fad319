// One HTTP request by libcurl, whose calls are variadic in C.
#ifndef PLOOPD_CCURL_H
#define PLOOPD_CCURL_H

#include <stddef.h>

struct ccurl_request {
  const char *method;
  const char *url;         // http or https
  const char *unix_socket; // path of the socket that is connected to instead of the host; NULL for none
  const char *body;        // JSON; NULL for none
  const char *authorities; // file with those that may vouch for the server; NULL for the system's
  const char *certificate; // file that the server is shown, with `key`; NULL for none
  const char *key;
  const char *const *headers; // further ones, NULL behind the last; NULL for none
  const char *token; // bearer token that the server is shown; NULL for none
  long connect_milliseconds;
  long milliseconds;     // for all of it; 0 for as long as it takes
  size_t limit;          // most bytes of a reply
  int allows_link_local; // whether 169.254.0.0/16 and fe80::/10 are connected to
  // Is given what a successful answer says, as it comes, instead of the reply's body; whatever is not 0 ends it. NULL
  // for a reply as a whole. A minute of silence is the end of it, too.
  int (*receive)(void *context, const char *bytes, size_t count);
  void *context;
};

struct ccurl_reply {
  long status;     // 0 where there is none
  int is_too_long; // the reply has more bytes than the limit
  int is_refused;  // the address is one that is not connected to
  int is_untrusted; // nobody vouches for the server, or it is another one than the URL says; `error` says which
  int is_unusable;  // one of the files cannot be used
  size_t length;
  char *body; // to be freed with ccurl_free
  char error[256];
};

// Any thread may call it. Returns 0 when there is a whole reply.
int ccurl_perform(const struct ccurl_request *request, struct ccurl_reply *reply);
void ccurl_free(struct ccurl_reply *reply);

#endif
