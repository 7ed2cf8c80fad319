#include "identity.h"

#include <gnutls/x509.h>

static void free_all(gnutls_x509_crt_t *certificates, unsigned int count) {
  for (unsigned int index = 0; index < count; index++) gnutls_x509_crt_deinit(certificates[index]);
}

// Whether the authorities vouch for the certificate and have not revoked it, now and for a client.
static int is_trusted(gnutls_x509_crt_t *chain, unsigned int count,
                      gnutls_certificate_credentials_t credentials) {
  gnutls_typed_vdata_st use = {.type = GNUTLS_DT_KEY_PURPOSE_OID,
                               .data = (unsigned char *)GNUTLS_KP_TLS_WWW_CLIENT};
  gnutls_x509_trust_list_t authorities = NULL;
  gnutls_certificate_get_trust_list(credentials, &authorities);
  unsigned int status = 0;
  return authorities != NULL &&
         gnutls_x509_trust_list_verify_crt2(authorities, chain, count, &use, 1, 0, &status, NULL) ==
             0 &&
         status == 0;
}

static void tell_names(gnutls_x509_crt_t certificate, cgnutls_name name, void *context) {
  char text[1024];
  size_t size = sizeof text;
  unsigned int index = 0;
  for (;; index++) {
    size = sizeof text;
    int type = gnutls_x509_crt_get_subject_alt_name(certificate, index, text, &size, NULL);
    // One that is too long for us is nobody's.
    if (type == GNUTLS_E_SHORT_MEMORY_BUFFER) continue;
    if (type < 0) break;
    if (type == GNUTLS_SAN_DNSNAME) name(context, "dns", text, size);
    if (type == GNUTLS_SAN_URI) name(context, "uri", text, size);
    if (type == GNUTLS_SAN_RFC822NAME) name(context, "mail", text, size);
  }
  // RFC 6125 6.4.4: the common name only where there is no other. Some authorities look at the others alone, and
  // leave this one to whoever asks for a certificate.
  size = sizeof text;
  if (index == 0 && gnutls_x509_crt_get_dn_by_oid(certificate, GNUTLS_OID_X520_COMMON_NAME, 0, 0,
                                                  text, &size) == 0)
    name(context, "cn", text, size);
}

enum cgnutls_client cgnutls_verify_client(gnutls_session_t session,
                                          const struct cgnutls_identity *identity,
                                          cgnutls_name name, void *context) {
  enum { MOST_CERTIFICATES = 16 };
  // Only where certificates are what the two have agreed on.
  if (gnutls_auth_client_get_type(session) != GNUTLS_CRD_CERTIFICATE)
    return CGNUTLS_NO_CERTIFICATE;
  unsigned int sent = 0;
  const gnutls_datum_t *shown = gnutls_certificate_get_peers(session, &sent);
  if (shown == NULL || sent == 0) return CGNUTLS_NO_CERTIFICATE;
  if (sent > MOST_CERTIFICATES) return CGNUTLS_UNTRUSTED;
  gnutls_certificate_credentials_t credentials = NULL;
  if (identity != NULL)
    credentials = identity->certificates;
  else
    gnutls_credentials_get(session, GNUTLS_CRD_CERTIFICATE, (void **)&credentials);
  gnutls_x509_crt_t chain[MOST_CERTIFICATES];
  unsigned int count = 0;
  int isRead = credentials != NULL;
  while (isRead && count < sent) {
    if (gnutls_x509_crt_init(&chain[count]) < 0) {
      isRead = 0;
      break;
    }
    count++;
    isRead = gnutls_x509_crt_import(chain[count - 1], &shown[count - 1], GNUTLS_X509_FMT_DER) == 0;
  }
  int isTrusted = isRead && is_trusted(chain, count, credentials);
  if (isTrusted && name != NULL) tell_names(chain[0], name, context);
  free_all(chain, count);
  return isTrusted ? CGNUTLS_TRUSTED : CGNUTLS_UNTRUSTED;
}
