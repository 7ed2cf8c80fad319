#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "identity.h"

// Bytes [start, end) of the memory wait.
struct buffer {
  unsigned char *bytes;
  size_t start, end, capacity;
};

enum {
  // Several records at once, so that a call to the kernel brings more than one.
  IN_BYTES = 128 * 1024,
  // What is written at once, with the headers and tags of its records, and what the handshake says.
  OUT_BYTES = CGNUTLS_WRITE_BYTES + 32 * 1024,
};

struct cgnutls_session {
  gnutls_session_t handle;
  struct buffer in, out;
  const char *fault;
  int hasFailed;
};

static ssize_t pull(gnutls_transport_ptr_t pointer, void *bytes, size_t count) {
  struct cgnutls_session *session = pointer;
  struct buffer *in = &session->in;
  size_t waiting = in->end - in->start;
  if (waiting == 0) {
    gnutls_transport_set_errno(session->handle, EAGAIN);
    return -1;
  }
  if (count > waiting) count = waiting;
  memcpy(bytes, in->bytes + in->start, count);
  in->start += count;
  if (in->start == in->end) in->start = in->end = 0;
  return (ssize_t)count;
}

static ssize_t push(gnutls_transport_ptr_t pointer, const void *bytes, size_t count) {
  struct cgnutls_session *session = pointer;
  struct buffer *out = &session->out;
  if (out->start > 0 && out->capacity - out->end < count) {
    memmove(out->bytes, out->bytes + out->start, out->end - out->start);
    out->end -= out->start;
    out->start = 0;
  }
  size_t room = out->capacity - out->end;
  if (room == 0) {
    gnutls_transport_set_errno(session->handle, EAGAIN);
    return -1;
  }
  if (count > room) count = room;
  memcpy(out->bytes + out->end, bytes, count);
  out->end += count;
  return (ssize_t)count;
}

// Whether something can be received is asked of the socket's owner; here it is only looked at what is there.
static int pull_timeout(gnutls_transport_ptr_t pointer, unsigned int milliseconds) {
  (void)milliseconds;
  struct cgnutls_session *session = pointer;
  return session->in.end > session->in.start;
}

// The handshake fails for whom no authority vouches.
static int verify(gnutls_session_t handle) {
  return cgnutls_verify_client(handle, NULL, NULL, NULL) == CGNUTLS_TRUSTED ? 0 : -1;
}

struct cgnutls_session *cgnutls_session_new(struct cgnutls_identity *identity,
                                            enum cgnutls_clients clients) {
  struct cgnutls_session *session = calloc(1, sizeof *session);
  if (session == NULL) return NULL;
  session->in = (struct buffer){.bytes = malloc(IN_BYTES), .capacity = IN_BYTES};
  session->out = (struct buffer){.bytes = malloc(OUT_BYTES), .capacity = OUT_BYTES};
  // No tickets: each connection shows anew who it is.
  int code = session->in.bytes == NULL || session->out.bytes == NULL
                 ? -1
                 : gnutls_init(&session->handle,
                               GNUTLS_SERVER | GNUTLS_NONBLOCK | GNUTLS_NO_TICKETS);
  if (code >= 0) code = gnutls_priority_set(session->handle, identity->priorities);
  if (code >= 0 && identity->certificates != NULL)
    code = gnutls_credentials_set(session->handle, GNUTLS_CRD_CERTIFICATE, identity->certificates);
  if (code >= 0 && identity->keys != NULL)
    code = gnutls_credentials_set(session->handle, GNUTLS_CRD_PSK, identity->keys);
  if (code < 0) {
    cgnutls_session_free(session);
    return NULL;
  }
  if (clients != CGNUTLS_ANYBODY)
    gnutls_certificate_server_set_request(
        session->handle,
        clients == CGNUTLS_VERIFIED_ONLY ? GNUTLS_CERT_REQUIRE : GNUTLS_CERT_REQUEST);
  if (clients == CGNUTLS_VERIFIED_ONLY) gnutls_session_set_verify_function(session->handle, verify);
  // Whose keys are looked up (identity.c).
  gnutls_session_set_ptr(session->handle, identity);
  gnutls_transport_set_ptr(session->handle, session);
  gnutls_transport_set_push_function(session->handle, push);
  gnutls_transport_set_pull_function(session->handle, pull);
  gnutls_transport_set_pull_timeout_function(session->handle, pull_timeout);
  return session;
}

void cgnutls_session_free(struct cgnutls_session *session) {
  if (session == NULL) return;
  if (session->handle != NULL) gnutls_deinit(session->handle);
  free(session->in.bytes);
  free(session->out.bytes);
  free(session);
}

// The other end is told why, unless there is no room even for that.
static enum cgnutls_outcome fail(struct cgnutls_session *session, ssize_t code) {
  session->fault = gnutls_strerror((int)code);
  if (session->hasFailed == 0) gnutls_alert_send_appropriate(session->handle, (int)code);
  session->hasFailed = 1;
  return CGNUTLS_FAILED;
}

// GnuTLS says AGAIN whether it could not read or not write.
static enum cgnutls_outcome wanted(struct cgnutls_session *session) {
  return gnutls_record_get_direction(session->handle) == 1 ? CGNUTLS_FULL : CGNUTLS_AGAIN;
}

enum cgnutls_outcome cgnutls_shake_hands(struct cgnutls_session *session) {
  while (1) {
    int code = gnutls_handshake(session->handle);
    if (code == GNUTLS_E_SUCCESS) return CGNUTLS_DONE;
    if (code == GNUTLS_E_AGAIN) return wanted(session);
    // Warnings are not the end of it.
    if (gnutls_error_is_fatal(code) == 0) continue;
    return fail(session, code);
  }
}

ssize_t cgnutls_read(struct cgnutls_session *session, void *bytes, size_t count) {
  if (session->hasFailed != 0) return CGNUTLS_FAILED;
  while (1) {
    size_t before = session->in.end - session->in.start;
    ssize_t done = gnutls_record_recv(session->handle, bytes, count);
    if (done > 0) return done;
    if (done == 0) return CGNUTLS_ENDED;
    // What is no data (new keys, a warning) may stand before some.
    int isTaken = session->in.end - session->in.start < before;
    if (done == GNUTLS_E_WARNING_ALERT_RECEIVED) continue;
    if (done == GNUTLS_E_AGAIN || done == GNUTLS_E_INTERRUPTED) {
      enum cgnutls_outcome what = wanted(session);
      if (what == CGNUTLS_AGAIN && isTaken && session->in.end > session->in.start) continue;
      return what;
    }
    // Nobody renegotiates here: it is refused as any other nonsense.
    return fail(session, done);
  }
}

enum cgnutls_outcome cgnutls_write(struct cgnutls_session *session, const void *bytes,
                                   size_t count) {
  if (session->hasFailed != 0) return CGNUTLS_FAILED;
  size_t done = 0;
  while (done < count) {
    ssize_t more =
        gnutls_record_send(session->handle, (const unsigned char *)bytes + done, count - done);
    if (more < 0) return fail(session, more);
    done += (size_t)more;
  }
  return CGNUTLS_DONE;
}

void cgnutls_bye(struct cgnutls_session *session) {
  if (session->hasFailed == 0) gnutls_bye(session->handle, GNUTLS_SHUT_WR);
}

void *cgnutls_room(struct cgnutls_session *session, size_t *count) {
  struct buffer *in = &session->in;
  if (in->start > 0) {
    memmove(in->bytes, in->bytes + in->start, in->end - in->start);
    in->end -= in->start;
    in->start = 0;
  }
  *count = in->capacity - in->end;
  return *count == 0 ? NULL : in->bytes + in->end;
}

void cgnutls_received(struct cgnutls_session *session, size_t count) { session->in.end += count; }

const void *cgnutls_waiting(struct cgnutls_session *session, size_t *count) {
  struct buffer *out = &session->out;
  *count = out->end - out->start;
  return *count == 0 ? NULL : out->bytes + out->start;
}

void cgnutls_sent(struct cgnutls_session *session, size_t count) {
  struct buffer *out = &session->out;
  out->start += count;
  if (out->start == out->end) out->start = out->end = 0;
}

gnutls_session_t cgnutls_handle(struct cgnutls_session *session) { return session->handle; }

const char *cgnutls_psk_user(struct cgnutls_session *session) {
  return gnutls_auth_client_get_type(session->handle) == GNUTLS_CRD_PSK
             ? gnutls_psk_server_get_username(session->handle)
             : NULL;
}

char *cgnutls_description(struct cgnutls_session *session) {
  return gnutls_session_get_desc(session->handle);
}

const char *cgnutls_fault(struct cgnutls_session *session) {
  return session->fault == NULL ? "no failure" : session->fault;
}
