/* What the runtime asks (its variables CNI_* and its stdin), and how it is sent to the agent (wire.py). */
#pragma once
#include "json.h"

enum {
	MOST_CONFIGURATION = 4 << 20, /* wire.py: MOST_CONFIGURATION */
	MOST_ENVIRONMENT = 64 << 10,  /* wire.py: MOST_ENVIRONMENT */
	STDIN_MS = 10000,
	HEADER = 16,
};
static const char PROTOCOL[] = "ackcni/1";
static const char SOCKET[] = "/run/ackward/node/agent.sock";

/* Static memory costs nothing until it is written. One byte more, to notice that there is more. */
static char header[HEADER];
static char environment[MOST_ENVIRONMENT];
static char configuration[MOST_CONFIGURATION + 1];
static size_t environment_length, configuration_length;
static struct members members;

/* All of stdin, or as much as there may be and one byte; 0 or -errno. */
static long read_configuration(void)
{
	long until = now_ms() + STDIN_MS;

	while (configuration_length < sizeof(configuration)) {
		long got = wait_for(0, POLLIN, until);

		if (!got)
			got = CALL(read, 0, configuration + configuration_length, sizeof(configuration) - configuration_length, 0, 0, 0);
		if (got == -EINTR)
			continue;
		if (got <= 0)
			return got;
		configuration_length += (size_t)got;
	}
	return 0;
}

static const char *variable(char **variables, const char *name)
{
	size_t length = length_of(name);

	for (; *variables; variables++)
		if (begins(*variables, length_of(*variables), name) && (*variables)[length] == '=')
			return *variables + length + 1;
	return "";
}

/* Each variable with the zero that ends it; 0 if they are too many. */
static int gather(char **variables)
{
	for (; *variables; variables++) {
		size_t length = length_of(*variables) + 1;

		if (!begins(*variables, length, "CNI_"))
			continue;
		if (length > sizeof(environment) - environment_length)
			return 0;
		environment_length = put(environment, environment_length, *variables, length);
	}
	return 1;
}

static void pack(char *to, size_t number)
{
	for (int i = 3; i >= 0; i--, number >>= 8)
		to[i] = (char)number;
}

/* The header of both parts, once they are complete. */
static void fill_header(void)
{
	put(header, 0, PROTOCOL, length_of(PROTOCOL));
	pack(header + 8, environment_length);
	pack(header + 12, configuration_length);
}

/* The path of the agent's socket; 0 if there is no room for it, or it is no plain string. */
static int socket_path(char *path, size_t room)
{
	struct text found = members.socket;

	if (!found.at) {
		put(path, 0, SOCKET, sizeof(SOCKET));
		return 1;
	}
	if (found.length < 3 || found.at[0] != '"' || found.at[1] != '/' || found.length - 1 > room)
		return 0;
	for (size_t i = 1; i < found.length - 1; i++)
		if (found.at[i] == '\\')
			return 0;
	path[put(path, 0, found.at + 1, found.length - 2)] = 0;
	return 1;
}

/* Whether CNI_NETNS leads to no namespace, for certain. Asked here: the runtime started us among its own mounts, and the agent
 * may live among others. A variable that is missing is for the agent to name. */
static int namespace_is_gone(char **variables)
{
	const char *path = variable(variables, "CNI_NETNS");
	struct statfs found;
	long error = CALL(statfs, path, &found, 0, 0, 0, 0);

	if (!*path)
		return 0;
	return *path != '/' || error == -ENOENT || error == -ENOTDIR || (!error && found.type != NSFS_MAGIC);
}

/* Whether the request can speak of annotations of ours at all: the others lose nothing without the agent. */
static int asks_for_something(void)
{
	for (size_t i = 0; i < configuration_length; i++) {
		const char *at = configuration + i;
		size_t left = configuration_length - i;

		if (*at == '"' && (begins(at, left, "\"enable-quickack\"") || begins(at, left, "\"ackward.io/")))
			return 1;
	}
	return 0;
}
