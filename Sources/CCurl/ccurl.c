#include "ccurl.h"

#include <arpa/inet.h>
#include <curl/curl.h>
#include <gnutls/gnutls.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

struct conversation {
  const struct ccurl_request *request;
  struct ccurl_reply *reply;
  CURL *handle;
  int is_ended; // by whoever receives
};

static size_t receive(char *bytes, size_t size, size_t count, void *context) {
  struct conversation *conversation = context;
  struct ccurl_reply *reply = conversation->reply;
  size_t added = size * count;
  long status = 0;
  if (conversation->request->receive) curl_easy_getinfo(conversation->handle, CURLINFO_RESPONSE_CODE, &status);
  if (status >= 200 && status < 300) {
    if (conversation->request->receive(conversation->request->context, bytes, added) == 0) return added;
    conversation->is_ended = 1;
    return CURL_WRITEFUNC_ERROR;
  }
  if (added > conversation->request->limit - reply->length) {
    reply->is_too_long = 1;
    return CURL_WRITEFUNC_ERROR;
  }
  char *grown = realloc(reply->body, reply->length + added + 1);
  if (!grown) return CURL_WRITEFUNC_ERROR;
  memcpy(grown + reply->length, bytes, added);
  reply->body = grown;
  reply->length += added;
  return added;
}

static int is_link_local(const struct sockaddr *address) {
  if (address->sa_family == AF_INET) {
    const struct sockaddr_in *four = (const struct sockaddr_in *)address;
    return (ntohl(four->sin_addr.s_addr) >> 16) == 0xA9FE;
  }
  if (address->sa_family != AF_INET6) return 0;
  const struct in6_addr *six = &((const struct sockaddr_in6 *)address)->sin6_addr;
  if (IN6_IS_ADDR_V4MAPPED(six)) return six->s6_addr[12] == 169 && six->s6_addr[13] == 254;
  // fd00:ec2::/32 is where a cloud keeps what its machines may know.
  if (six->s6_addr[0] == 0xFD && six->s6_addr[1] == 0 && six->s6_addr[2] == 0x0E && six->s6_addr[3] == 0xC2) return 1;
  return IN6_IS_ADDR_LINKLOCAL(six);
}

static curl_socket_t connect_to(void *context, curlsocktype purpose, struct curl_sockaddr *address) {
  struct conversation *conversation = context;
  (void)purpose;
  if (!conversation->request->allows_link_local && is_link_local(&address->addr)) {
    conversation->reply->is_refused = 1;
    return CURL_SOCKET_BAD;
  }
  return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

// What is wrong with a server's certificate. GnuTLS judges it, and libcurl keeps that judgement to itself but for its
// number; of a name that does not match, and of what other libraries judge, it has words.
static void tell_why_untrusted(CURL *handle, const char *words, struct ccurl_reply *reply) {
  const curl_version_info_data *version = curl_version_info(CURLVERSION_NOW);
  long verdict = 0;
  gnutls_datum_t text = {NULL, 0};
  curl_easy_getinfo(handle, CURLINFO_SSL_VERIFYRESULT, &verdict);
  if (verdict != 0 && version->ssl_version && strncmp(version->ssl_version, "GnuTLS", 6) == 0 &&
      gnutls_certificate_verification_status_print((unsigned)verdict, GNUTLS_CRT_X509, &text, 0) == 0) {
    strncpy(reply->error, (const char *)text.data, sizeof reply->error - 1);
    gnutls_free(text.data);
    // It ends its sentences with a space.
    for (size_t end = strlen(reply->error); end > 0 && reply->error[end - 1] == ' '; end -= 1)
      reply->error[end - 1] = 0;
  } else if (words[0] != 0) {
    strncpy(reply->error, words, sizeof reply->error - 1);
  }
}

static pthread_once_t once = PTHREAD_ONCE_INIT;
static void begin(void) { curl_global_init(CURL_GLOBAL_DEFAULT); }

int ccurl_perform(const struct ccurl_request *request, struct ccurl_reply *reply) {
  memset(reply, 0, sizeof *reply);
  pthread_once(&once, begin);
  CURL *handle = curl_easy_init();
  if (!handle) {
    strcpy(reply->error, "libcurl");
    return 1;
  }
  struct conversation conversation = {request, reply, handle, 0};
  char words[CURL_ERROR_SIZE] = "";
  struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
  if (request->body) headers = curl_slist_append(headers, "Content-Type: application/json");
  for (const char *const *header = request->headers; header && *header; header++)
    headers = curl_slist_append(headers, *header);
  curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
  curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, "http,https");
  curl_easy_setopt(handle, CURLOPT_NOPROXY, "*");
  curl_easy_setopt(handle, CURLOPT_FOLLOWLOCATION, 0L);
  curl_easy_setopt(handle, CURLOPT_FRESH_CONNECT, 1L);
  curl_easy_setopt(handle, CURLOPT_FORBID_REUSE, 1L);
  curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, request->connect_milliseconds);
  curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, request->milliseconds);
  curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, receive);
  curl_easy_setopt(handle, CURLOPT_WRITEDATA, &conversation);
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETFUNCTION, connect_to);
  curl_easy_setopt(handle, CURLOPT_OPENSOCKETDATA, &conversation);
  curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request->method);
  curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers);
  if (request->body) curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request->body);
  CURLcode code = curl_easy_setopt(handle, CURLOPT_URL, request->url);
  if (code == CURLE_OK && request->unix_socket)
    code = curl_easy_setopt(handle, CURLOPT_UNIX_SOCKET_PATH, request->unix_socket);
  curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, words);
  curl_easy_setopt(handle, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
  if (code == CURLE_OK && request->authorities) {
    code = curl_easy_setopt(handle, CURLOPT_CAINFO, request->authorities);
    // Nobody else: the folder of the system's would count as well.
    if (code == CURLE_OK) code = curl_easy_setopt(handle, CURLOPT_CAPATH, NULL);
  }
  if (code == CURLE_OK && request->certificate) {
    code = curl_easy_setopt(handle, CURLOPT_SSLCERT, request->certificate);
    if (code == CURLE_OK) code = curl_easy_setopt(handle, CURLOPT_SSLKEY, request->key);
  }
  if (code == CURLE_OK && request->token) {
    curl_easy_setopt(handle, CURLOPT_HTTPAUTH, (long)CURLAUTH_BEARER);
    code = curl_easy_setopt(handle, CURLOPT_XOAUTH2_BEARER, request->token);
  }
  if (request->receive) {
    curl_easy_setopt(handle, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(handle, CURLOPT_LOW_SPEED_TIME, 60L);
  }
  if (code == CURLE_OK) code = curl_easy_perform(handle);
  if (conversation.is_ended) code = CURLE_OK;
  if (code == CURLE_OK) {
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &reply->status);
  } else {
    // Not the longer text, which has another number of milliseconds each time.
    strncpy(reply->error, curl_easy_strerror(code), sizeof reply->error - 1);
    reply->is_untrusted = code == CURLE_PEER_FAILED_VERIFICATION;
    reply->is_unusable = code == CURLE_SSL_CERTPROBLEM || code == CURLE_SSL_CACERT_BADFILE;
    if (reply->is_untrusted) tell_why_untrusted(handle, words, reply);
  }
  curl_slist_free_all(headers);
  curl_easy_cleanup(handle);
  return code == CURLE_OK ? 0 : 1;
}

void ccurl_free(struct ccurl_reply *reply) {
  free(reply->body);
  reply->body = NULL;
}
