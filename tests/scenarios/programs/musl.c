/* A network client with musl, static: its own resolver, and threads. Usage: musl NAME PORT; looks the
   name up, and talks to an echo server at 10.0.2.15. */
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS = 8, ROUNDS = 10 };

static const char *port;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void *talk(void *number) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo("10.0.2.15", port, &hints, &found) != 0) fail("getaddrinfo");
    int fd = socket(found->ai_family, found->ai_socktype, 0);
    if (fd < 0 || connect(fd, found->ai_addr, found->ai_addrlen) != 0) fail("connect");
    freeaddrinfo(found);
    FILE *in = fdopen(fd, "r");
    for (int round = 0; round < ROUNDS; round++) {
        char said[64], expected[64], answer[64];
        snprintf(said, sizeof said, "thread %d, round %d\n", (int)(long)number, round);
        snprintf(expected, sizeof expected, "THREAD %d, ROUND %d\n", (int)(long)number, round);
        if (write(fd, said, strlen(said)) != (ssize_t)strlen(said)) fail("write");
        struct pollfd entry = {.fd = fd, .events = POLLIN};
        if (poll(&entry, 1, 60000) != 1) fail("poll");
        if (!fgets(answer, sizeof answer, in) || strcmp(answer, expected)) fail("answer");
    }
    fclose(in);
    return number;
}

int main(int argc, char **argv) {
    struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_STREAM}, *found;
    int error = argc == 3 ? getaddrinfo(argv[1], argv[2], &hints, &found) : EAI_FAIL;
    if (error) {
        fprintf(stderr, "%s\n", gai_strerror(error));
        return 1;
    }
    port = argv[2];
    printf("%s\n", inet_ntoa(((struct sockaddr_in *)found->ai_addr)->sin_addr));
    pthread_t threads[THREADS];
    for (long n = 0; n < THREADS; n++)
        if (pthread_create(&threads[n], NULL, talk, (void *)n) != 0) fail("thread");
    for (long n = 0; n < THREADS; n++) {
        void *result;
        if (pthread_join(threads[n], &result) != 0 || result != (void *)n) fail("join");
    }
    puts("all answers");
    return 0;
}
