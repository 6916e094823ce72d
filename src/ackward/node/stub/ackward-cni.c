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
#include "agent.h"
#include "missed.h"
#include "output.h"

enum command { ADD, CHECK, DEL, GC, STATUS, VERSION, UNKNOWN };
static const char *const COMMANDS[] = { "ADD", "CHECK", "DEL", "GC", "STATUS", "VERSION" };

static const char SILENT[] = "the node agent of ackward does not answer";
static const char NO_SOCKET[] = "agentSocket is no plain absolute path of at most 107 bytes without escapes, so no agent can be asked";

static int without_agent(enum command command, const char *socket, const char *why, long error, char **variables)
{
	int closed = members.policy.length == 8 && begins(members.policy.at, 8, "\"closed\"");

	say_error(why, error);
	switch (command) {
	case DEL:
		withdraw(socket, variables);
		return 0;
	case STATUS: /* a runtime that is told so calls the whole node's network not ready, and starts no pod */
		if (!closed)
			return 0;
		return fail(NOT_AVAILABLE, why, "failurePolicy is closed: pods that ask for something do not start");
	case GC:
		return fail(TRY_AGAIN_LATER, why, "nothing was taken away");
	default:
		break;
	}
	if (closed && asks_for_something())
		return fail(TRY_AGAIN_LATER, why, "failurePolicy is closed, so this pod does not start without it");
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
	if ((command == ADD || command == CHECK) && asks_for_something() && namespace_is_gone(variables))
		return fail(INVALID_ENVIRONMENT, "CNI_NETNS is no network namespace", "it is gone or something else");
	if (!socket_path(path, sizeof(path)))
		return without_agent(command, "", NO_SOCKET, 0, variables);
	fill_header();
	error = ask(path, &code, &length);
	if (error)
		return without_agent(command, path, SILENT, error, variables);
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
