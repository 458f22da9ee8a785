/*
 * The designs in plain C, for comparison.
 *
 *   peer iterative|fork|select|poll|epoll|prefork|passfd|thread|prethread HOST PORT N [static]
 *
 * They speak the protocol of this collection and print what its servers print. There
 * are no timeouts, no child is replaced, and a bad request gets no message. The random
 * bytes are made in the process, about as fast as those of the servers: to compare with
 * getrandom(2), which takes 10 microseconds for 4 KiB, would be to compare sources of bytes. With
 * "static" the bytes are constant: no source of bytes can be faster.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A multiplexer sends twice a chunk at a time, as the servers here do. */
enum { CHUNK = 65536, MAX_FD = 65536, MAX_REQUEST = 1024 };

static int listener, child_num, constant;
static pid_t *pids;                   /* of a pool */
static long left[MAX_FD];             /* of a multiplexer: bytes to be sent, by descriptor */

static void die(const char *what) { perror(what); exit(1); }

/* Returns the number of bytes that the client asks for, or -1. */
static long read_request(int conn)
{
    char request[MAX_REQUEST + 1], *end;
    ssize_t n = recv(conn, request, MAX_REQUEST, 0);
    if (n <= 0)
        return -1;
    request[n] = 0;
    long count = strtol(request, &end, 10);
    if (end == request || count < 0)
        return -1;
    printf("Got request to send %ld bytes. Sending them all...\n", count);
    return count;
}

static uint64_t rotate(uint64_t x, int k) { return x << k | x >> (64 - k); }

/* Fills a chunk with random bytes: xoshiro256++, by Blackman and Vigna. */
static void fill(char *chunk, size_t size)
{
    static __thread uint64_t a, b, c, d;
    while ((a | b | c | d) == 0) { /* once in a thread or process; a parent that forks sends nothing */
        uint64_t seed[4];
        if (getrandom(seed, sizeof seed, 0) != sizeof seed)
            die("getrandom");
        a = seed[0], b = seed[1], c = seed[2], d = seed[3];
    }
    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        uint64_t number = rotate(a + d, 23) + a, shifted = b << 17;
        memcpy(chunk + i, &number, sizeof number);
        c ^= a;
        d ^= b;
        b ^= c;
        a ^= d;
        c ^= shifted;
        d = rotate(d, 45);
    }
}

static ssize_t send_some(int conn, long count, char *chunk, long room)
{
    size_t size = count < room ? count : room;
    if (!constant)
        fill(chunk, size);
    return send(conn, chunk, size, MSG_NOSIGNAL);
}

static void handle(int conn)
{
    /* On the stack it would take less memory, but glibc gives the used pages of a stack back when a
       thread ends, and a connection would cost twice as much CPU time. */
    static __thread char chunk[CHUNK];
    for (long count = read_request(conn); count > 0; ) {
        ssize_t n = send_some(conn, count, chunk, sizeof chunk);
        if (n < 0)
            break;
        count -= n;
    }
    close(conn);
}

static int accept_client(void)
{
    for (;;) {
        int conn = accept(listener, NULL, NULL);
        if (conn >= 0 || errno == EAGAIN)
            return conn;
        if (errno != EINTR && errno != ECONNABORTED)
            die("accept");
    }
}

static void iterative(void)
{
    for (;;)
        handle(accept_client());
}

/* One child per client. */

static void reap_children(int sig)
{
    int saved = errno;
    while (waitpid(-1, NULL, WNOHANG) > 0)
        ;
    errno = saved;
}

static void fork_server(void)
{
    signal(SIGCHLD, reap_children);
    for (;;) {
        int conn = accept_client();
        if (fork() == 0) {
            close(listener);
            handle(conn);
            exit(0);
        }
        close(conn);
    }
}

/* A pool of children. */

static void cleanup(int sig)
{
    for (int i = 0; pids && i < child_num; i++)
        kill(pids[i], SIGTERM);
    while (wait(NULL) > 0)
        ;
    _exit(0);
}

/* Signals that come while children are created wait until cleanup knows all of them. */
static void block_signals(int how)
{
    sigset_t both;
    sigemptyset(&both);
    sigaddset(&both, SIGINT);
    sigaddset(&both, SIGTERM);
    sigprocmask(how, &both, NULL);
}

static pid_t create_child(void)
{
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGINT, SIG_IGN);
        signal(SIGTERM, SIG_DFL);
        block_signals(SIG_UNBLOCK);
    }
    return pid;
}

static void prefork(void)
{
    block_signals(SIG_BLOCK);
    pids = calloc(child_num, sizeof *pids);
    for (int i = 0; i < child_num; i++)
        if ((pids[i] = create_child()) == 0)
            iterative();
    block_signals(SIG_UNBLOCK);
    for (;;)
        pause();
}

static void write_fd(int pipe, int fd)
{
    char data = 0, control[CMSG_SPACE(sizeof fd)] = { 0 };
    struct iovec vec = { &data, 1 };
    struct msghdr msg = { .msg_iov = &vec, .msg_iovlen = 1,
                          .msg_control = control, .msg_controllen = sizeof control };
    struct cmsghdr *header = CMSG_FIRSTHDR(&msg);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(pipe, &msg, 0) < 0)
        die("sendmsg");
}

static int read_fd(int pipe)
{
    int fd;
    char data, control[CMSG_SPACE(sizeof fd)];
    struct iovec vec = { &data, 1 };
    struct msghdr msg = { .msg_iov = &vec, .msg_iovlen = 1,
                          .msg_control = control, .msg_controllen = sizeof control };
    if (recvmsg(pipe, &msg, 0) <= 0 || !CMSG_FIRSTHDR(&msg))
        exit(0);
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof fd);
    return fd;
}

static void passfd(void)
{
    struct pollfd fds[child_num + 1]; /* the pipes to the children, and the listener */
    int busy[child_num], free_num = child_num;
    block_signals(SIG_BLOCK);
    pids = calloc(child_num, sizeof *pids);
    fds[child_num] = (struct pollfd){ .fd = listener };
    for (int i = 0; i < child_num; i++) {
        int pair[2];
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
            die("socketpair");
        if ((pids[i] = create_child()) == 0) {
            close(listener);
            close(pair[0]);
            do
                handle(read_fd(pair[1]));
            while (write(pair[1], "", 1) == 1);
            exit(0);
        }
        close(pair[1]);
        fds[i] = (struct pollfd){ .fd = pair[0], .events = POLLIN };
        busy[i] = 0;
    }
    block_signals(SIG_UNBLOCK);
    for (;;) {
        fds[child_num].events = free_num > 0 ? POLLIN : 0;
        if (poll(fds, child_num + 1, -1) < 0)
            continue;
        for (int i = 0; i < child_num; i++) {
            char data;
            if (fds[i].revents && read(fds[i].fd, &data, 1) == 1) {
                busy[i] = 0;
                free_num++;
            }
        }
        int conn, i = 0;
        if (free_num == 0 || !(fds[child_num].revents & POLLIN) || (conn = accept_client()) < 0)
            continue;
        while (busy[i])
            i++;
        write_fd(fds[i].fd, conn);
        close(conn);
        busy[i] = 1;
        free_num--;
    }
}

/* Threads. */

static void *handle_thread(void *conn) { handle((int)(long)conn); return NULL; }

static void thread_per_client(void)
{
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 256 << 10);
    for (;;) {
        pthread_t thread;
        int conn = accept_client();
        if (pthread_create(&thread, &attr, handle_thread, (void *)(long)conn))
            close(conn);
    }
}

static void *thread_loop(void *unused) { iterative(); return unused; }

static void prethread(void)
{
    pthread_t thread;
    for (int i = 0; i < child_num; i++)
        pthread_create(&thread, NULL, thread_loop, NULL);
    for (;;)
        pause();
}

/* Multiplexers. */

enum want { DONE = -1, READ, WRITE };

/* Does what can be done without waiting, and returns what to wait for. */
static enum want step(int fd)
{
    static char chunk[2 * CHUNK];
    if (left[fd] == 0 && (left[fd] = read_request(fd)) < 0) {
        left[fd] = 0;
        return DONE;
    }
    while (left[fd] > 0) {
        ssize_t n = send_some(fd, left[fd], chunk, sizeof chunk);
        if (n < 0 && errno == EAGAIN)
            return WRITE;
        if (n < 0) {
            left[fd] = 0;
            return DONE;
        }
        left[fd] -= n;
    }
    return READ;
}

/* Accepts one of the clients that wait, or returns -1. */
static int accept_nonblocking(void)
{
    for (;;) {
        int conn = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        if (conn >= 0 || errno == EAGAIN)
            return conn;
        if (errno != EINTR && errno != ECONNABORTED)
            die("accept");
    }
}

static void select_server(void)
{
    fd_set reading, writing;
    int top = listener;
    FD_ZERO(&reading);
    FD_ZERO(&writing);
    FD_SET(listener, &reading);
    for (;;) {
        fd_set readable = reading, writable = writing;
        if (select(top + 1, &readable, &writable, NULL, NULL) < 0)
            continue;
        for (int fd = 0, end = top; fd <= end; fd++) {
            if (!FD_ISSET(fd, &readable) && !FD_ISSET(fd, &writable))
                continue;
            if (fd == listener) {
                for (int conn; (conn = accept_nonblocking()) >= 0; ) {
                    if (conn >= FD_SETSIZE) {
                        close(conn);
                        continue;
                    }
                    FD_SET(conn, &reading);
                    top = conn > top ? conn : top;
                }
                continue;
            }
            enum want want = step(fd);
            FD_CLR(fd, &reading);
            FD_CLR(fd, &writing);
            if (want == DONE)
                close(fd);
            else
                FD_SET(fd, want == READ ? &reading : &writing);
        }
    }
}

static void poll_server(void)
{
    static struct pollfd fds[MAX_FD];
    int n = 1;
    fds[0] = (struct pollfd){ .fd = listener, .events = POLLIN };
    for (;;) {
        if (poll(fds, n, -1) < 0)
            continue;
        for (int i = n - 1; i > 0; i--) {
            if (!fds[i].revents)
                continue;
            enum want want = step(fds[i].fd);
            fds[i].events = want == READ ? POLLIN : POLLOUT;
            if (want == DONE) {
                close(fds[i].fd);
                fds[i] = fds[--n];
            }
        }
        int conn;
        while (fds[0].revents && n < MAX_FD && (conn = accept_nonblocking()) >= 0)
            fds[n++] = (struct pollfd){ .fd = conn, .events = POLLIN };
    }
}

static void epoll_server(void)
{
    struct epoll_event event = { .events = EPOLLIN, .data.fd = listener }, events[256];
    int list = epoll_create1(0);
    epoll_ctl(list, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int n = epoll_wait(list, events, 256, -1);
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            if (fd == listener) {
                for (int conn; (conn = accept_nonblocking()) >= 0; ) {
                    event = (struct epoll_event){ .events = EPOLLIN, .data.fd = conn };
                    epoll_ctl(list, EPOLL_CTL_ADD, conn, &event);
                }
                continue;
            }
            enum want before = left[fd] > 0 ? WRITE : READ, want = step(fd);
            event = (struct epoll_event){ .events = want == READ ? EPOLLIN : EPOLLOUT, .data.fd = fd };
            if (want == DONE)
                close(fd);
            else if (want != before)
                epoll_ctl(list, EPOLL_CTL_MOD, fd, &event);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct { const char *name; void (*serve)(void); int nonblocking; } designs[] = {
        { "iterative", iterative, 0 }, { "fork", fork_server, 0 }, { "select", select_server, 1 },
        { "poll", poll_server, 1 }, { "epoll", epoll_server, 1 }, { "prefork", prefork, 0 },
        { "passfd", passfd, 1 }, { "thread", thread_per_client, 0 }, { "prethread", prethread, 0 },
    };
    struct sockaddr_in addr = { .sin_family = AF_INET };
    socklen_t size = sizeof addr;
    struct rlimit limit;
    int on = 1;
    constant = argc == 6 && !strcmp(argv[5], "static");
    if (argc != 5 + constant || inet_pton(AF_INET, argv[2], &addr.sin_addr) != 1) {
        fprintf(stderr, "usage: peer DESIGN HOST PORT N [static]\n");
        return 2;
    }
    addr.sin_port = htons(atoi(argv[3]));
    child_num = atoi(argv[4]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) { /* the soft limit may be 1024 */
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    signal(SIGINT, cleanup);
    signal(SIGTERM, cleanup);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&addr, size) || listen(listener, SOMAXCONN) ||
        getsockname(listener, (struct sockaddr *)&addr, &size))
        die("listen");
    printf("Listening on port %d ...\n", ntohs(addr.sin_port));
    for (size_t i = 0; i < sizeof designs / sizeof *designs; i++) {
        if (strcmp(designs[i].name, argv[1]))
            continue;
        if (designs[i].nonblocking)
            fcntl(listener, F_SETFL, O_NONBLOCK);
        designs[i].serve();
    }
    fprintf(stderr, "peer: no such design: %s\n", argv[1]);
    return 2;
}
