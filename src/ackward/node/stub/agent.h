/* One question to the node agent, through its socket (requests.py). */
#pragma once
#include "request.h"

enum { AGENT_MS = 3000 }; /* requests.py: DEADLINE_S */

static char answer[64 << 10];

static size_t unpack(const char *from)
{
	size_t number = 0;

	for (int i = 0; i < 4; i++)
		number = number << 8 | (u8)from[i];
	return number;
}

static long send_all(int fd, const char *data, size_t length, long until)
{
	while (length) {
		long sent = CALL(sendto, fd, data, length, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0);

		if (sent == -EAGAIN)
			sent = wait_for(fd, POLLOUT, until);
		else if (sent > 0)
			data += sent, length -= (size_t)sent;
		if (sent < 0 && sent != -EINTR)
			return sent;
	}
	return 0;
}

/* Exactly so many bytes; an end before that is no answer. */
static long receive(int fd, char *data, size_t length, long until)
{
	while (length) {
		long got = CALL(recvfrom, fd, data, length, MSG_DONTWAIT, 0, 0);

		if (!got)
			return -EPROTO;
		if (got == -EAGAIN)
			got = wait_for(fd, POLLIN, until);
		else if (got > 0)
			data += got, length -= (size_t)got;
		if (got < 0 && got != -EINTR)
			return got;
	}
	return 0;
}

static long exchange(int fd, long until, int *code, size_t *length)
{
	long error = send_all(fd, header, HEADER, until);

	if (!error)
		error = send_all(fd, environment, environment_length, until);
	if (!error)
		error = send_all(fd, configuration, configuration_length, until);
	if (!error)
		error = receive(fd, answer, HEADER, until);
	if (error)
		return error;
	*code = (int)unpack(answer + 8);
	*length = unpack(answer + 12);
	/* Success has nothing to say, and an error is an object. */
	if (!begins(answer, HEADER, PROTOCOL) || (*code != 0 && *code != 1) || (*code == 0) != (*length == 0) || *length > sizeof(answer))
		return -EPROTO;
	error = receive(fd, answer, *length, until);
	return error ? error : *length && answer[0] != '{' ? -EPROTO : 0;
}

/* 0 when the agent has answered; else why not, as -errno. */
static long ask(const char *path, int *code, size_t *length)
{
	struct sockaddr_un address = { AF_UNIX, { 0 } };
	struct timeval patience = { AGENT_MS / 1000, AGENT_MS % 1000 * 1000 };
	long until = now_ms() + AGENT_MS;
	long fd = CALL(socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, 0, 0, 0);
	long error;

	if (fd < 0)
		return fd;
	put(address.path, 0, path, length_of(path));
	/* connect(2) waits as long when too many wait already. */
	CALL(setsockopt, fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience), 0);
	error = CALL(connect, fd, &address, sizeof(address), 0, 0, 0);
	if (!error)
		error = exchange((int)fd, until, code, length);
	CALL(close, fd, 0, 0, 0, 0, 0);
	return error;
}
