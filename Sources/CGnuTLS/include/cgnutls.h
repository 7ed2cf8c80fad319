// GnuTLS as an engine in memory: bytes of the wire go in and come out, and whoever uses it does all the sending and
// receiving. And what is asked of it about the other end.
#ifndef PLOOPD_CGNUTLS_H
#define PLOOPD_CGNUTLS_H

#include <gnutls/gnutls.h>
#include <stddef.h>
#include <sys/types.h>

// What is spoken at all: nothing that is broken, or that can be read later by who learns the server's key.
#define CGNUTLS_PRIORITIES "SECURE128:-VERS-ALL:+VERS-TLS1.3:+VERS-TLS1.2:-RSA"

// Told each of the names that a certificate is for, and of what kind it is: dns, uri, mail or cn.
typedef void (*cgnutls_name)(void *context, const char *kind, const char *bytes, size_t count);

struct cgnutls_identity;

// What is known of the other end's certificate.
enum cgnutls_client {
  CGNUTLS_NO_CERTIFICATE,
  // Of another authority, for another use, expired or not yet valid, or revoked.
  CGNUTLS_UNTRUSTED,
  CGNUTLS_TRUSTED,
};

// Verifies the client's certificate, and calls `name`, if there is one, with each of the names that the certificate is
// for: the alternative ones that are DNS names, mail addresses or URIs, or the common name where there is none.
// `identity` is whose authorities and revocations count; NULL for the session's own.
enum cgnutls_client cgnutls_verify_client(gnutls_session_t session,
                                          const struct cgnutls_identity *identity,
                                          cgnutls_name name, void *context);

// Texts in PEM, zero-terminated; NULL for what there is none of.
struct cgnutls_files {
  const char *certificate;
  const char *key;
  const char *authorities;
  const char *revoked;
  int takes_keys; // whether clients may have pre-shared keys
};

// What a server shows and whom it believes; any number of sessions at once may use it.
// NULL where these cannot be used; `fault` says why then.
struct cgnutls_identity *cgnutls_identity_new(const struct cgnutls_files *files,
                                              const char **fault);
// Makes a client's pre-shared key known, before any session; both are copied. -1 without memory.
int cgnutls_add_key(struct cgnutls_identity *identity, const void *user, size_t user_bytes,
                    const void *key, size_t key_bytes);
void cgnutls_identity_free(struct cgnutls_identity *identity);

// One server's end of a connection. Used by one thread at a time.
struct cgnutls_session;

enum cgnutls_outcome {
  CGNUTLS_DONE = 0,
  // More has to come in first.
  CGNUTLS_AGAIN = -1,
  // The other end has said that it sends no more.
  CGNUTLS_ENDED = -2,
  // For good: the other end is told, and nothing goes on.
  CGNUTLS_FAILED = -3,
  // What waits has to be sent first.
  CGNUTLS_FULL = -4,
};

enum cgnutls_clients {
  CGNUTLS_ANYBODY,
  // Who has a certificate is asked to show it.
  CGNUTLS_KNOWN_BY_CERTIFICATE,
  // Only those for whom an authority vouches, or who have a pre-shared key.
  CGNUTLS_VERIFIED_ONLY,
};

// `identity` has to stay as long as the session. NULL without memory.
struct cgnutls_session *cgnutls_session_new(struct cgnutls_identity *identity,
                                            enum cgnutls_clients clients);
void cgnutls_session_free(struct cgnutls_session *session);

enum cgnutls_outcome cgnutls_shake_hands(struct cgnutls_session *session);
// Bytes of plain text, more than 0, or an outcome.
ssize_t cgnutls_read(struct cgnutls_session *session, void *bytes, size_t count);
// Takes all of at most CGNUTLS_WRITE_BYTES, whose cipher text is there to be sent afterwards; 0 or CGNUTLS_FAILED.
enum cgnutls_outcome cgnutls_write(struct cgnutls_session *session, const void *bytes,
                                   size_t count);
#define CGNUTLS_WRITE_BYTES (132 * 1024)
// Says that no more is sent; nothing after a failure, as then that would be a lie.
void cgnutls_bye(struct cgnutls_session *session);

// Where cipher text may be received; NULL when all room is taken.
void *cgnutls_room(struct cgnutls_session *session, size_t *count);
void cgnutls_received(struct cgnutls_session *session, size_t count);
// Cipher text that waits to be sent; NULL when there is none.
const void *cgnutls_waiting(struct cgnutls_session *session, size_t *count);
void cgnutls_sent(struct cgnutls_session *session, size_t count);

gnutls_session_t cgnutls_handle(struct cgnutls_session *session);
// Of whoever has shown a pre-shared key; NULL otherwise.
const char *cgnutls_psk_user(struct cgnutls_session *session);
// Protocol, key exchange and cipher in words; to be freed.
char *cgnutls_description(struct cgnutls_session *session);
// The last failure, in words.
const char *cgnutls_fault(struct cgnutls_session *session);

#endif
