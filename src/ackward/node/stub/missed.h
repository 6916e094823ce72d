/* Requests that no agent heard: left beside its socket, for when it is back (cni_missed.py). */
#pragma once
#include "request.h"

enum {
	MOST_MISSED = 500,	       /* requests that wait for the agent: more than any node has pods */
	MOST_MISSED_BYTES = 128 << 10, /* of one; all of them are 64 MB of memory at most, and hardly ever 2 */
};

static int fit_for_a_name(const char *text, size_t most)
{
	size_t length = 0;

	for (; text[length]; length++) {
		char c = text[length];
		int letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

		if (!letter && (c != '_' && c != '-' && c != '.'))
			return 0;
	}
	return length > 0 && length <= most && text[0] != '.'; /* a name with a dot is of a request that is being written */
}

/* DIRECTORY/missed/[PREFIX]ID.IFNAME beside the socket; 0 if there is none, or if ID and IFNAME are not fit for it. */
static int missed_path(char *path, size_t *directory, const char *socket, const char *prefix, char **variables)
{
	const char *id = variable(variables, "CNI_CONTAINERID"), *ifname = variable(variables, "CNI_IFNAME");
	size_t at = length_of(socket);

	if (!*socket || !fit_for_a_name(id, 200) || !fit_for_a_name(ifname, 15))
		return 0;
	while (socket[at - 1] != '/')
		at--;
	at = put(path, 0, socket, at);
	at = put(path, at, "missed/", 7);
	*directory = at;
	at = put(path, at, prefix, length_of(prefix));
	at = put(path, at, id, length_of(id));
	at = put(path, at, ".", 1);
	put(path, at, ifname, length_of(ifname) + 1);
	return 1;
}

/* Makes the directory of the missed, for root alone: beside a socket of another place than ours it makes no more than that,
 * or a mistyped agentSocket would litter the node. Ours is gone after a reboot, when pods may start before the agent. */
static void make_directories(char *path, size_t length, const char *socket)
{
	size_t i = same(socket, SOCKET) ? 1 : length - 1;

	for (; i < length; i++) {
		if (path[i] != '/')
			continue;
		path[i] = 0;
		CALL(mkdirat, AT_FDCWD, path, 0700, 0, 0, 0);
		path[i] = '/';
	}
}

/* How many requests wait already; -errno when that cannot be told. */
static long count_missed(const char *path, size_t directory)
{
	_Alignas(struct dirent64) char entries[4096];
	char name[512];
	long got, count = 0, fd;

	put(name, 0, path, directory);
	name[directory] = 0;
	fd = CALL(openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return fd;
	while ((got = CALL(getdents64, fd, entries, sizeof(entries), 0, 0, 0)) > 0)
		for (long at = 0; at < got; count++)
			at += ((struct dirent64 *)(entries + at))->length;
	CALL(close, fd, 0, 0, 0, 0, 0);
	return got < 0 ? got : count - 2; /* without . and .. */
}

static long write_request(const char *path)
{
	long error, fd = CALL(openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600, 0, 0);

	if (fd < 0)
		return fd;
	error = write_all((int)fd, header, HEADER);
	if (!error)
		error = write_all((int)fd, environment, environment_length);
	if (!error)
		error = write_all((int)fd, configuration, configuration_length);
	CALL(close, fd, 0, 0, 0, 0, 0);
	return error;
}

/* Leaves the request for the agent, whole or not at all; 0 or -errno. */
static long leave(const char *socket, char **variables)
{
	char path[512], partial[512];
	size_t directory;
	long count, error;

	if (!missed_path(path, &directory, socket, "", variables))
		return -ENAMETOOLONG;
	missed_path(partial, &directory, socket, ".", variables);
	make_directories(path, directory, socket);
	count = count_missed(path, directory);
	if (count < 0)
		return count;
	if (count >= MOST_MISSED || environment_length + configuration_length > MOST_MISSED_BYTES)
		return -ENOSPC;
	CALL(unlinkat, AT_FDCWD, partial, 0, 0, 0, 0); /* of one that was killed: nobody else adds this interface now */
	error = write_request(partial);
	if (!error)
		error = CALL(renameat, AT_FDCWD, partial, AT_FDCWD, path, 0, 0);
	if (error)
		CALL(unlinkat, AT_FDCWD, partial, 0, 0, 0, 0);
	return error;
}

/* A DEL that the agent does not hear: at least nobody shall make up for the ADD any more. */
static void withdraw(const char *socket, char **variables)
{
	char path[512];
	size_t directory;

	if (missed_path(path, &directory, socket, "", variables))
		CALL(unlinkat, AT_FDCWD, path, 0, 0, 0, 0);
}
