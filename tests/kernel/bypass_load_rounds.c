/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* How quick a connection is, both ends as event loops: they poll, then read what has come. */
#include "bypass_load.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* Polls before each read. Gives 0 at the end of the stream. */
static int arrived(int fd, char *buffer, size_t size)
{
	for (size_t at = 0; at < size;) {
		ssize_t got;

		until(fd, POLLIN);
		got = recv(fd, buffer + at, size - at, MSG_DONTWAIT);
		if (got == 0 || (got < 0 && errno != EAGAIN))
			return 0;
		at += got < 0 ? 0 : got;
	}
	return 1;
}

void answer(int fd, size_t size)
{
	char *buffer = malloc(size);

	while (arrived(fd, buffer, size))
		all(fd, buffer, size);
	free(buffer);
}

void swallow(int fd)
{
	char *buffer = malloc(LARGEST);
	uint64_t read = 0;
	ssize_t got;

	while ((got = polled(fd, buffer, LARGEST)) > 0)
		read += got;
	all(fd, &read, sizeof(read));
	free(buffer);
}

static int ascending(const void *one, const void *other)
{
	uint32_t a = *(const uint32_t *)one, b = *(const uint32_t *)other;

	return (a > b) - (a < b);
}

/* Rounds of `size` bytes there and back, `once` each; prints what a round took. */
static void measured(size_t size, double seconds, void (*once)(int out, int in, char *buffer, size_t size), int out, int in)
{
	size_t rounds = 0, room = 1 << 22;
	uint32_t *taken = malloc(room * sizeof(*taken));
	char *buffer = calloc(1, size);
	uint64_t begin = now_ns(), at = begin, end = begin + seconds * 1e9;

	while (at < end && rounds < room) {
		uint64_t after;

		once(out, in, buffer, size);
		after = now_ns();
		taken[rounds++] = after - at;
		at = after;
	}
	qsort(taken, rounds, sizeof(*taken), ascending);
	printf("%zu %.6f %u %u %u\n", rounds, (at - begin) / 1e9, taken[rounds / 2], taken[rounds * 99 / 100], taken[rounds - 1]);
}

static void over_socket(int out, int in, char *buffer, size_t size)
{
	all(out, buffer, size);
	if (!arrived(in, buffer, size))
		wrong("the stream ended early");
}

void ask(size_t size, double seconds)
{
	struct opening opening = { ASK, 0, size };
	int fd = connected(0);

	all(fd, &opening, sizeof(opening));
	measured(size, seconds, over_socket, fd, fd);
}

void stream(size_t size, double seconds, int cork)
{
	struct opening opening = { STREAM, 0, size };
	char *buffer = calloc(1, size);
	int fd = connected(0);
	uint64_t begin, end, sent = 0, read_there;

	all(fd, &opening, sizeof(opening));
	setsockopt(fd, IPPROTO_TCP, TCP_CORK, &cork, sizeof(cork));
	begin = now_ns();
	end = begin + seconds * 1e9;
	do {
		for (int i = 0; i < 64; i++)
			all(fd, buffer, size);
		sent += 64 * size;
	} while (now_ns() < end);
	shutdown(fd, SHUT_WR);
	whole(fd, &read_there, sizeof(read_there));
	if (read_there != sent)
		wrong("bytes are missing");
	printf("%llu %.6f\n", (unsigned long long)sent, (now_ns() - begin) / 1e9);
}

static void over_pipe(int out, int in, char *buffer, size_t size)
{
	if (write(out, buffer, size) != (ssize_t)size)
		fail("write");
	for (size_t at = 0; at < size;) {
		ssize_t got = read(in, buffer + at, size - at);

		if (got <= 0)
			fail("read");
		at += got;
	}
}

/* The same rounds between two processes with no network between them: what no bypass can go below. */
void ask_within(const char *way, size_t size, double seconds)
{
	int there[2], back[2], sockets = !strcmp(way, "unix");
	pid_t child;

	if (sockets ? socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, there) : pipe(there) || pipe(back))
		fail(way);
	child = fork();
	if (child < 0)
		fail("fork");
	if (child == 0) {
		char *buffer = malloc(size);

		if (sockets) {
			close(there[0]);
			answer(there[1], size);
			_exit(0);
		}
		close(there[1]);
		close(back[0]);
		while (read(there[0], buffer, size) == (ssize_t)size)
			if (write(back[1], buffer, size) != (ssize_t)size)
				break;
		_exit(0);
	}
	if (sockets)
		measured(size, seconds, over_socket, there[0], there[0]);
	else
		measured(size, seconds, over_pipe, there[1], back[0]);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0); /* its processor time counts as ours */
}
