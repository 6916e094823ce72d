/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/*
 * Traffic that notices when a byte is lost, doubled or out of place: both ends of many connections, in one program each.
 *
 *   bypass_load serve PORT THREADS
 *   bypass_load transfer ADDRESS PORT CONNECTIONS BYTES SEED    so many bytes each way on each connection, random sizes and pauses
 *   bypass_load churn ADDRESS PORT CONNECTIONS AT_A_TIME SEED   short connections, a request and an answer each
 *   bypass_load ask ADDRESS PORT SIZE SECONDS                   request and answer of SIZE bytes, one after the other
 *   bypass_load stream ADDRESS PORT SIZE SECONDS [HOW]          writes of SIZE bytes; with TCP_NODELAY if HOW is `nodelay`,
 *                                                               in full segments whoever reads if it is `cork`
 *   bypass_load unix|pipe SIZE SECONDS                          as `ask`, between two processes without a network
 *
 * `churn` blocks in recv() as simple programs do; `ask` and `stream` have sockets that do not block, as event loops.
 *
 * A stream is 64-bit words, each its own number plus a salt of the connection and direction. A client ends with 0 if and only
 * if all was right; it prints one line: bytes, seconds, and nanoseconds at quantiles where it measures rounds.
 */
#include "bypass_load.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

void wrong(const char *what)
{
	fprintf(stderr, "%s\n", what);
	exit(1);
}

uint64_t now_ns(void)
{
	struct timespec at;

	clock_gettime(CLOCK_MONOTONIC, &at);
	return at.tv_sec * 1000000000ull + at.tv_nsec;
}

void until(int fd, short events)
{
	struct pollfd one = { fd, events, 0 };

	poll(&one, 1, -1);
}

/* As an event loop reads: first try, then wait. */
ssize_t polled(int fd, void *buffer, size_t size)
{
	ssize_t got;

	while ((got = recv(fd, buffer, size, MSG_DONTWAIT)) < 0 && errno == EAGAIN)
		until(fd, POLLIN);
	return got;
}

void whole(int fd, void *buffer, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t got = polled(fd, (char *)buffer + at, size - at);

		if (got < 0)
			fail("recv");
		if (got == 0)
			wrong("the stream ended early");
		at += got;
	}
}

void all(int fd, const void *buffer, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t sent = send(fd, (const char *)buffer + at, size - at, MSG_NOSIGNAL);

		if (sent < 0 && errno == EAGAIN)
			until(fd, POLLOUT);
		else if (sent <= 0)
			fail("send");
		else
			at += sent;
	}
}

static void both_ways(int fd, const struct opening *opening, int server)
{
	uint64_t salts[2] = { (uint64_t)opening->seed << 32, (uint64_t)opening->seed << 32 | 1ull << 63 };
	struct half out = { fd, opening->bytes, salts[server], opening->seed + server, 1 };
	struct half in = { fd, opening->bytes, salts[!server], opening->seed + server + 2, 1 };
	pthread_t writer;

	pthread_create(&writer, NULL, write_stream, &out);
	read_stream(&in);
	pthread_join(writer, NULL);
}

static void ended(int fd)
{
	char byte;

	if (polled(fd, &byte, 1) != 0)
		wrong("no end of the stream");
}

static void serve_one(int fd)
{
	struct opening opening;
	int one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (recv(fd, &opening, sizeof(opening), MSG_PEEK) == 0) { /* somebody looked whether we are here */
		close(fd);
		return;
	}
	whole(fd, &opening, sizeof(opening));
	if (opening.kind == ASK || opening.kind == STREAM)
		fcntl(fd, F_SETFL, O_NONBLOCK);
	switch (opening.kind) {
	case TRANSFER:
		both_ways(fd, &opening, 1);
		all(fd, "", 1);
		ended(fd);
		break;
	case REQUEST: {
		struct half in = { fd, opening.bytes, opening.seed, opening.seed, 0 };
		struct half out = { fd, opening.bytes, ~(uint64_t)opening.seed, opening.seed, 0 };

		read_stream(&in);
		if (opening.seed % 2) /* a client that has shut its direction down */
			ended(fd);
		write_stream(&out);
		break;
	}
	case ASK:
		answer(fd, opening.bytes);
		break;
	case STREAM:
		swallow(fd);
		break;
	}
	close(fd);
}

static int listener;

static void *serve(void *argument)
{
	(void)argument;
	for (;;) {
		int fd = accept(listener, NULL, NULL);

		if (fd < 0)
			fail("accept");
		serve_one(fd);
	}
	return NULL;
}

static void threads(int count, void *(*body)(void *), void *argument, int wait)
{
	pthread_t *all_of_them = calloc(count, sizeof(*all_of_them));
	pthread_attr_t attributes;

	pthread_attr_init(&attributes);
	pthread_attr_setstacksize(&attributes, 128 << 10);
	for (int i = 0; i < count; i++)
		if (pthread_create(&all_of_them[i], &attributes, body, argument))
			fail("pthread_create");
	for (int i = 0; wait && i < count; i++)
		pthread_join(all_of_them[i], NULL);
	free(all_of_them);
}

static struct sockaddr_in6 server_address;
static socklen_t server_length;
static int spread; /* over 127.0.0.1 to 127.0.0.200: ports in TIME_WAIT are not enough for one address */

static int streams;
static int event_loop; /* SOCK_NONBLOCK for clients that behave like one */

int connected(uint32_t number)
{
	struct sockaddr_in6 address = server_address;
	int fd = socket(address.sin6_family, SOCK_STREAM | event_loop, 0), one = 1;

	if (fd < 0)
		fail("socket");
	if (spread)
		((struct sockaddr_in *)&address)->sin_addr.s_addr = htonl(0x7f000001 + number % 200);
	if (connect(fd, (void *)&address, server_length)) {
		if (errno != EINPROGRESS)
			fail("connect");
		until(fd, POLLOUT);
	}
	if (!streams) /* a stream of small writes is gathered by Nagle's algorithm, as in most programs */
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

static uint64_t bytes_each;
static uint32_t base_seed, number, count_of_all;

static void *transfer(void *argument)
{
	uint32_t mine = __atomic_fetch_add(&number, 1, __ATOMIC_RELAXED);
	struct opening opening = { TRANSFER, base_seed + mine * 16, bytes_each };
	int fd = connected(mine);
	char byte;

	(void)argument;
	all(fd, &opening, sizeof(opening));
	both_ways(fd, &opening, 0);
	whole(fd, &byte, 1);
	close(fd);
	return NULL;
}

static void *churn(void *argument)
{
	uint32_t mine;

	(void)argument;
	while ((mine = __atomic_fetch_add(&number, 1, __ATOMIC_RELAXED)) < count_of_all) {
		uint32_t state = (base_seed + mine * 2654435761u) | 2;
		struct opening opening = { REQUEST, next(&state), 1 + next(&state) % 4096 };
		struct half out = { 0, opening.bytes, opening.seed, opening.seed, 0 };
		struct half in = { 0, opening.bytes, ~(uint64_t)opening.seed, opening.seed, 0 };
		int fd = connected(mine);

		in.fd = out.fd = fd;
		all(fd, &opening, sizeof(opening));
		write_stream(&out);
		if (opening.seed % 2) {
			/* The ACK of the FIN wakes a blocked reader too. */
			in.polls = 1;
			shutdown(fd, SHUT_WR);
		}
		read_stream(&in);
		ended(fd);
		close(fd);
	}
	return NULL;
}

static void parse_address(const char *host, const char *port)
{
	struct addrinfo hints = { .ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM }, *found;

	if (getaddrinfo(host, port, &hints, &found))
		wrong("no such address");
	memcpy(&server_address, found->ai_addr, found->ai_addrlen);
	server_length = found->ai_addrlen;
	freeaddrinfo(found);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc == 4 && !strcmp(argv[1], "serve")) {
		struct sockaddr_in6 any = { .sin6_family = AF_INET6, .sin6_port = htons(atoi(argv[2])) };
		int one = 1;

		listener = socket(AF_INET6, SOCK_STREAM, 0);
		setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
		if (bind(listener, (void *)&any, sizeof(any)) || listen(listener, 4096))
			fail("listen");
		threads(atoi(argv[3]) - 1, serve, NULL, 0);
		puts("ready");
		fflush(stdout);
		serve(NULL);
	}
	if (argc == 4 && (!strcmp(argv[1], "unix") || !strcmp(argv[1], "pipe"))) {
		ask_within(argv[1], atoi(argv[2]), atof(argv[3]));
		return 0;
	}
	if (argc < 6)
		wrong("usage: see the top of the source");
	parse_address(argv[2], argv[3]);
	if (!strcmp(argv[1], "transfer")) {
		uint64_t begin = now_ns();
		int connections = atoi(argv[4]);

		bytes_each = strtoull(argv[5], NULL, 0);
		base_seed = atoi(argv[6]);
		threads(connections, transfer, NULL, 1);
		printf("%llu %.6f\n", (unsigned long long)(2 * bytes_each * connections), (now_ns() - begin) / 1e9);
	} else if (!strcmp(argv[1], "churn")) {
		uint64_t begin = now_ns();

		count_of_all = atoi(argv[4]);
		base_seed = atoi(argv[6]);
		spread = !strcmp(argv[2], "127.0.0.1");
		threads(atoi(argv[5]), churn, NULL, 1);
		printf("%u %.6f\n", count_of_all, (now_ns() - begin) / 1e9);
	} else if (!strcmp(argv[1], "ask")) {
		event_loop = SOCK_NONBLOCK;
		ask(atoi(argv[4]), atof(argv[5]));
	} else if (!strcmp(argv[1], "stream")) {
		event_loop = SOCK_NONBLOCK;
		streams = argc == 6 || strcmp(argv[6], "nodelay");
		stream(atoi(argv[4]), atof(argv[5]), argc == 7 && !strcmp(argv[6], "cork"));
	} else {
		wrong("usage: see the top of the source");
	}
	return 0;
}
