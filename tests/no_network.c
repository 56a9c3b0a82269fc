// Preloaded into a process: notes every wish to reach another machine in $NO_NETWORK_LOG, and refuses it.
#define _GNU_SOURCE
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <dlfcn.h>

static void note(const char *call, const char *what) {
  FILE *log = fopen(getenv("NO_NETWORK_LOG"), "a");
  if (log != NULL) {
    fprintf(log, "%s %s\n", call, what != NULL ? what : "");
    fclose(log);
  }
}

static int leaves_the_machine(const struct sockaddr *address) {
  return address != NULL && (address->sa_family == AF_INET || address->sa_family == AF_INET6);
}

int connect(int socket, const struct sockaddr *address, socklen_t length) {
  if (leaves_the_machine(address)) {
    note("connect", NULL);
    errno = ENETUNREACH;
    return -1;
  }
  int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");
  return real(socket, address, length);
}

ssize_t sendto(int socket, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length) {
  if (leaves_the_machine(address)) {
    note("sendto", NULL);
    errno = ENETUNREACH;
    return -1;
  }
  ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "sendto");
  return real(socket, data, size, flags, address, length);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
  (void)service, (void)hints, (void)found;
  note("getaddrinfo", node);
  return EAI_FAIL;
}

struct hostent *gethostbyname(const char *name) {
  note("gethostbyname", name);
  return NULL;
}
