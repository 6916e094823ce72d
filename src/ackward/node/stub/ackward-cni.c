/* The CNI plugin: hands its stdin and its variables CNI_* to the node agent, prints what the agent answers (wire.py).
 *
 * Laws:
 * 1. It fails open. Agent gone, slow or confused: an ADD prints prevResult as it stood on stdin, so that the pod starts, and
 *    leaves the request where the agent finds it when it is back. Only `"failurePolicy": "closed"` makes it an error.
 * 2. DEL always succeeds: a runtime that cannot delete a sandbox leaks its addresses.
 * 3. What it prints is whole: one JSON object, or nothing.
 * 4. It is bounded: in memory (static buffers), in time (deadlines), in what it leaves behind.
 *
 * It has no C library, so one clang builds it for both machines, and it starts in a fraction of a millisecond.
 */
#include "json.h"

enum {
	MOST_CONFIGURATION = 4 << 20, /* wire.py: MOST_CONFIGURATION */
	MOST_ENVIRONMENT = 64 << 10,
	MOST_MISSED = 500,	       /* requests that wait for the agent: more than any node has pods */
	MOST_MISSED_BYTES = 128 << 10, /* of one; all of them are 64 MB of memory at most, and hardly ever 2 */
	STDIN_MS = 10000,
	AGENT_MS = 3000,
};
/* Error codes of the specification. */
enum { INVALID_ENVIRONMENT = 4, IO_FAILURE = 5, UNDECODABLE = 6, INVALID_CONFIGURATION = 7, TRY_AGAIN_LATER = 11, NOT_AVAILABLE = 50 };
enum command { ADD, CHECK, DEL, GC, STATUS, VERSION, UNKNOWN };

static const char *const COMMANDS[] = { "ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION" };
static const char *const VERSIONS[] = { "\"0.3.0\"", "\"0.3.1\"", "\"0.4.0\"", "\"1.0.0\"", "\"1.1.0\"" };
static const char SOCKET[] = "/run/ackward/node/agent.sock";
static const char PROTOCOL[] = "ackcni/1";
enum { HEADER = 16, COUNT = sizeof(VERSIONS) / sizeof(*VERSIONS) };

/* Static memory costs nothing until it is written. One byte more, to notice that there is more. */
static char header[HEADER];
static char environment[MOST_ENVIRONMENT];
static char configuration[MOST_CONFIGURATION + 1];
static char answer[64 << 10];
static size_t environment_length, configuration_length;
static struct members members;

static void say(const char *text)
{
	write_all(2, text, length_of(text));
}

static void say_number(long number)
{
	char digits[24];
	size_t at = sizeof(digits);

	do
		digits[--at] = (char)('0' + number % 10);
	while (number /= 10);
	write_all(2, digits + at, sizeof(digits) - at);
}

static void say_error(const char *what, long error)
{
	say("ackward-cni: ");
	say(what);
	if (error < 0) {
		say(" (errno ");
		say_number(-error);
		say(")");
	}
	say("\n");
}

/* The request's version, if it is one of ours, with its quotes; else one that all runtimes read. */
static struct text version(void)
{
	for (int i = 0; i < COUNT; i++)
		if (members.version.length == length_of(VERSIONS[i]) && begins(members.version.at, members.version.length, VERSIONS[i]))
			return members.version;
	return (struct text){ "\"1.0.0\"", 7 };
}

static size_t put(char *to, size_t at, const char *text, size_t length)
{
	memcpy(to + at, text, length);
	return at + length;
}

/* The error object on stdout; gives the exit code. */
static int fail(int code, const char *message, const char *details)
{
	char object[1024];
	struct text known = version();
	char digits[4];
	size_t at = 0, digit = sizeof(digits);

	do
		digits[--digit] = (char)('0' + code % 10);
	while (code /= 10);
	at = put(object, at, "{\"cniVersion\":", 14);
	at = put(object, at, known.at, known.length);
	at = put(object, at, ",\"code\":", 8);
	at = put(object, at, digits + digit, sizeof(digits) - digit);
	at = put(object, at, ",\"msg\":\"", 8);
	at = put(object, at, message, length_of(message));
	at = put(object, at, "\",\"details\":\"", 13);
	at = put(object, at, details, length_of(details));
	at = put(object, at, "\"}\n", 3);
	write_all(1, object, at);
	return 1;
}

static int print_versions(void)
{
	struct text known = version();
	char object[256];
	size_t at = put(object, 0, "{\"cniVersion\":", 14);

	at = put(object, at, known.at, known.length);
	at = put(object, at, ",\"supportedVersions\":[", 22);
	for (int i = 0; i < COUNT; i++) {
		if (i)
			at = put(object, at, ",", 1);
		at = put(object, at, VERSIONS[i], length_of(VERSIONS[i]));
	}
	at = put(object, at, "]}\n", 3);
	return write_all(1, object, at) ? 1 : 0;
}

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

static int fit_for_a_name(const char *text, size_t most)
{
	size_t length = 0;

	for (; text[length]; length++) {
		char c = text[length];
		int letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');

		if (!letter && (c != '_' && c != '-' && c != '.'))
			return 0;
	}
	return length > 0 && length <= most;
}

/* DIRECTORY/missed/[PREFIX]ID.IFNAME beside the socket; 0 if ID and IFNAME are not fit for it. */
static int missed_path(char *path, size_t *directory, const char *socket, const char *prefix, char **variables)
{
	const char *id = variable(variables, "CNI_CONTAINERID"), *ifname = variable(variables, "CNI_IFNAME");
	size_t at = length_of(socket);

	if (!fit_for_a_name(id, 200) || !fit_for_a_name(ifname, 15))
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
	char name[512];
	long got, count = 0, fd;

	put(name, 0, path, directory);
	name[directory] = 0;
	fd = CALL(openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0, 0, 0);
	if (fd < 0)
		return fd;
	while ((got = CALL(getdents64, fd, answer, sizeof(answer), 0, 0, 0)) > 0)
		for (long at = 0; at < got; count++)
			at += ((struct dirent64 *)(answer + at))->length;
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

static int print_previous(void)
{
	if (!members.previous.at || members.previous.at[0] != '{')
		return fail(INVALID_CONFIGURATION, "prevResult is missing or no object", "this plugin is chained after the one that makes the network");
	return write_all(1, members.previous.at, members.previous.length) ? 1 : 0;
}

static int without_agent(enum command command, const char *socket, long error, char **variables)
{
	int closed = members.policy.length == 8 && begins(members.policy.at, 8, "\"closed\"");

	say_error("the node agent does not answer", error);
	switch (command) {
	case DEL:
		withdraw(socket, variables);
		return 0;
	case STATUS: /* a runtime that is told so calls the whole node's network not ready, and starts no pod */
		if (!closed)
			return 0;
		return fail(NOT_AVAILABLE, "the node agent of ackward does not answer", "failurePolicy is closed: pods that ask for something do not start");
	case GC:
		return fail(TRY_AGAIN_LATER, "the node agent of ackward does not answer", "nothing was taken away");
	default:
		break;
	}
	if (closed && asks_for_something())
		return fail(TRY_AGAIN_LATER, "the node agent of ackward does not answer", "failurePolicy is closed, so this pod does not start without it");
	if (command == CHECK)
		return 0;
	if (asks_for_something() && members.previous.at) {
		error = leave(socket, variables);
		say_error(error ? "the pod starts without what its annotations ask for, and the request could not be left for the agent"
				: "the pod starts without what its annotations ask for, until the agent is back", error);
	}
	return print_previous();
}

static enum command command_of(const char *word)
{
	enum command command = ADD;

	while (command < UNKNOWN && !same(word, COMMANDS[command]))
		command++;
	return command;
}

static int run(char **variables)
{
	enum command command = command_of(variable(variables, "CNI_COMMAND"));
	char path[sizeof(((struct sockaddr_un *)0)->path)];
	long error = read_configuration();
	int code = 1, whole;
	size_t length = 0;

	whole = configuration_length <= MOST_CONFIGURATION && json_members(configuration, configuration_length, &members);
	if (command == VERSION)
		return print_versions();
	if (command == UNKNOWN)
		return fail(INVALID_ENVIRONMENT, "CNI_COMMAND is none of ADD, CHECK, DEL, GC, STATUS, VERSION", "");
	if (!gather(variables)) {
		environment_length = 0;
		if (command != DEL)
			return fail(INVALID_ENVIRONMENT, "the variables CNI_* are too long", "64 KiB are the most");
	}
	if (configuration_length > MOST_CONFIGURATION)
		configuration_length = 0;
	if (!whole && command != DEL) {
		if (error)
			return fail(IO_FAILURE, "stdin cannot be read", "");
		return fail(UNDECODABLE, "the network configuration is not a JSON object", "4 MiB and 128 levels are the most");
	}
	if (!socket_path(path, sizeof(path))) {
		if (command != DEL)
			return fail(INVALID_CONFIGURATION, "agentSocket is no plain absolute path", "it has at most 107 bytes and no escapes");
		put(path, 0, SOCKET, sizeof(SOCKET));
	}
	put(header, 0, PROTOCOL, 8);
	pack(header + 8, environment_length);
	pack(header + 12, configuration_length);
	error = ask(path, &code, &length);
	if (error)
		return without_agent(command, path, error, variables);
	if (command == DEL)
		return 0;
	if (code)
		return write_all(1, answer, length), 1;
	return command == ADD ? print_previous() : 0;
}

/* argc, argv and their NULL, then the variables. */
__attribute__((used)) void begin(long *stack)
{
	unsigned long broken_pipe = 1ul << (SIGPIPE - 1);
	int code;

	/* A runtime that does not listen to stderr shall not end us before stdout is written. */
	CALL(rt_sigprocmask, SIG_BLOCK, &broken_pipe, NULL, sizeof(broken_pipe), 0, 0);
	code = run((char **)(stack + 1 + stack[0] + 1));
	CALL(exit_group, code, 0, 0, 0, 0, 0);
	__builtin_unreachable();
}
