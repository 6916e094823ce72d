/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the programs of the bypass know: the scope, the members, what is learned, and what they have counted. */
#ifndef ACKWARD_BYPASS_STATE_H
#define ACKWARD_BYPASS_STATE_H

#include "bypass_types.h"

#define CONNECTIONS 65536
#define RULES 8
#define SERVICES 4096

/* What an end of a connection must meet; both ends together must meet all that is asked for. */
enum criterion { OF_CGROUP = 1, OF_NETNS = 2, OF_PORT = 4, TO_NETWORK = 8, FROM_NETWORK = 16 };

struct network {
	u32 address[4]; /* in network order; IPv4 as ::ffff:0:0/96 */
	u32 mask[4];
};

struct ports {
	u16 first, last;
};

struct scope {
	u32 joining;	 /* 0: nobody joins any more */
	u32 redirecting; /* 0: all goes over TCP */
	u32 asked;	 /* criteria */
	u32 most_bytes;
	u32 most_messages;
	u32 forbidden_networks;
	u32 learning; /* 1: only connections of services that were learned to profit join */
	u32 pollers_only; /* 1: ends whose program waits in recv() itself stay out */
	u64 cgroup; /* its id */
	u64 netns;  /* its cookie */
	struct network to, from;
	struct network forbidden[RULES];
	struct ports port;
	struct ports forbidden_ports[RULES]; /* first 0: none */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct scope);
} scope_map SEC(".maps");

/* What became of connections and of messages. Names for people are in counters.py, in this order. */
enum counter {
	JOINED, /* ends; two for each connection */
	LEFT,	/* ends that closed */
	OUT_OF_SCOPE,
	FORBIDDEN,
	IS_MPTCP,
	FAST_OPEN,
	OTHER_OWNER,
	HAS_ULP,
	TABLE_FULL,
	SAMPLED,  /* connections of which their service's ways are learned */
	STREAMS,  /* connections of services that do not take turns */
	BLOCKS,	  /* ends of services with a program that waits in recv() itself */
	PECULIAR_OPTIONS, /* ends with options that a sock map has no regard for */
	WROTE_EARLY, /* connections whose client wrote before the server's end had joined */
	AMBIGUOUS,   /* connections with the initial sequence numbers of another */
	REDIRECTED,
	REDIRECTED_BYTES,
	PASSED_UNPAIRED, /* the other end is no member */
	PASSED_BEHIND,	 /* what went over TCP before it has not arrived */
	PASSED_FULL,	 /* too many bytes wait in the reader's queue */
	PASSED_MANY,	 /* too many messages do */
	PASSED_MEMORY,	 /* TCP's memory is short, on this machine or in the reader's cgroup */
	PASSED_WINDOW,	 /* TCP's window is too small to be a way out */
	PASSED_CLOSING,
	PASSED_STOPPED,
	OVERLAPPED, /* segments of which a part had arrived before */
	CONNECTED_ANEW, /* sockets that were taken out because their program uses them for another connection */
	COUNTERS
};

struct counters {
	u64 of[COUNTERS];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct counters);
} counters_map SEC(".maps");

struct sequence_numbers {
	u32 client, server; /* initial ones */
};

struct half {
	u64 cookie; /* of the socket, which is never given to another; 0: not a member (yet) */
	u64 socket; /* its address */
};

/* Whose ways are learned. */
struct service {
	u64 cgroup; /* the server's, its id */
	u64 client; /* ... and the client's: another program, which may have other ways */
	u32 port;   /* as the server knows it */
	u32 within; /* 1: of clients in the server's own namespace */
};

/* Of those that one end by itself calls for, UNDECIDED, JOINS, BLOCKING and PECULIAR, a later one overrules. */
enum manner { UNDECIDED, JOINS, STREAMING, BLOCKING, PECULIAR };

struct learned {
	u32 manner;
	u32 server, client; /* the most that such an end has called for by itself; UNDECIDED: none was seen yet */
	u64 connections; /* offered since */
	u64 turns;	 /* segments of those samples, the way that had fewer */
	u64 segments;	 /* ... and the other way */
	u64 writes, written; /* of both ends: how many, and their bytes */
	u64 sent, carried;   /* the segments that TCP made of them, and their bytes */
};

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, SERVICES);
	__type(key, struct service);
	__type(value, struct learned);
} services SEC(".maps");

enum progress { OFFERED, COMPLETE, BROKEN };

struct pair {
	u32 met; /* criteria that the server's end meets */
	u32 manner;
	u64 progress; /* from OFFERED to one of the others, once */
	u64 netns;    /* the server's */
	struct half client, server;
	struct service service;
};

/* An end of a connection that is sampled. */
struct sample {
	struct service service;
	struct half client; /* what the end that accepted knows of the other */
	u32 server;	    /* 1: the end that accepted */
	/* Since its first segments: */
	u32 writes;  /* that TCP took bytes of */
	u32 first;   /* the sequence number before them */
	u32 written; /* ... and after the last */
	u32 sent;    /* segments before */
	u64 carried; /* bytes in these */
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct sample);
} samples SEC(".maps");

/* Between a SYN and the client's first message. Full, the oldest go: their connections stay on TCP. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, struct sequence_numbers);
	__type(value, struct pair);
} pairs SEC(".maps");

/* The members, by their cookie. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, CONNECTIONS);
	__type(key, u64);
	__type(value, u64);
} members SEC(".maps");

/* What a member knows as a writer. Only its own sends write here, under its lock. */
struct end {
	struct sequence_numbers numbers;
	struct half self, peer;
	struct service service;
	u64 server; /* 1: the end that accepted */
	u64 messages, bytes; /* redirected */
	u64 read_messages;   /* at least so many of them were read */
	u64 mark_messages, mark_bytes;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct end);
} ends SEC(".maps");

/* The members once more, for the survey: a sockhash cannot be walked by a program. */
struct member {
	u64 socket;
	u64 netns;
	u64 joined_ns; /* CLOCK_MONOTONIC */
	u32 server;    /* 1: the end that accepted */
	u16 port;      /* the server's, as this end knows it */
	u16 reserved;
	u32 received;  /* the sequence number after the last byte that came over TCP into the queue */
	u32 first;     /* ... of the connection's first byte */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, CONNECTIONS);
	__type(key, u64);
	__type(value, struct member);
} listed SEC(".maps");

static const u32 zero;

/*
 * The sequence number of the first byte that the peer sends: tcp_rcv_nxt_update() moves both. Tells connections of one socket
 * apart (connect(AF_UNSPEC)).
 */
static __always_inline u32 first_byte(const struct tcp_sock *tp)
{
	return tp->rcv_nxt - (u32)tp->bytes_received;
}

static __always_inline void count(enum counter which)
{
	struct counters *counters = bpf_map_lookup_elem(&counters_map, &zero);

	if (counters)
		counters->of[which]++;
}

#endif
