/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* What the recorder keeps of each socket and flow, and gives to user space. */
#ifndef ACKWARD_SEGMENTS_STATE_H
#define ACKWARD_SEGMENTS_STATE_H

#include "tcp_timers.h"

#define RING 64 /* events kept per socket: an exchange of ordinary requests has 4 to 12 */
#define MAX_SOCKETS 65536

enum role { ROLE_UNKNOWN = 0, ROLE_CLIENT = 1, ROLE_SERVER = 2 };
enum phase { REQUEST = 0, RESPONSE = 1 };
enum held { ONE_HELD = 1, SEVERAL_HELD = 2, MUCH_HELD = 3 }; /* writes smaller than a segment, or more at once */

/* Who a socket is, and the sums over its fast exchanges. Read by user space when the watch ends. */
struct flow_record {
	u64 born_ns;
	u64 exchanges;
	u64 handshake_ns;
	u64 request_ns;  /* first request byte to last */
	u64 wait_ns;     /* last request byte to first answer byte */
	u64 response_ns; /* first answer byte to last */
	u64 bytes_sent;
	u64 bytes_received;
	u64 cgroup_id;
	u32 netns;
	u32 pid;
	u32 min_rtt_us;
	u16 family;
	u16 local_port;
	u16 remote_port;
	u8 role;
	u8 role_seen; /* the handshake was seen, so the role is a fact */
	u8 hash;
	u8 lost;
	u8 mptcp;
	u8 unused[5];
	u8 local_address[16];
	u8 remote_address[16];
	u8 command[16];
};

struct socket_record {
	u64 start_ns;
	u64 established_ns;
	u64 last_request_ns;
	u64 first_response_ns;
	u64 last_response_ns;
	u64 bytes_sent; /* since the flow's sums were last brought up to date */
	u64 bytes_received;
	struct unacknowledged unacknowledged;
	u32 flow;
	u32 count; /* events in the ring, ever growing within an exchange */
	u32 sent_end;
	u32 received_end;
	u32 ports; /* local port << 16 | remote port: tells a reused address from the socket that it was */
	u8 role;
	u8 phase;
	u8 spilled; /* some of this exchange has left already, so the rest must follow */
	u8 lost;
	u8 hash;
	u8 owner_known;
	u8 held; /* an enum held: what was written and held since the send queue was empty; 0 if nothing was */
	u8 unused;
	struct segment_event ring[RING];
};

const volatile struct {
	u64 slow_ns;
	u64 cgroup; /* its id; 0: any */
	u32 netns;  /* 0: any */
	u16 port;   /* 0: any */
	u16 first_ephemeral; /* the ports that this host gives to clients */
	u16 last_ephemeral;
	u16 unused[3];
} settings = {};

struct {
	u32 flows;
	u32 shed;    /* flows whose hash is below this are shed */
	u32 refused; /* sockets that found no room */
	u32 unparsed;
	u64 segments;
} totals = {};

struct listener {
	u32 netns; /* 0: any */
	u32 port;
};

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} events SEC(".maps");

/* Whole rings of transfers that are longer than one: a call for 64 events instead of 64 calls. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} batches SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u64); /* address of the socket */
	__type(value, struct socket_record);
} sockets SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MAX_SOCKETS * 4);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, u32);
	__type(value, struct flow_record);
} flows SEC(".maps");

/* Ports with a listener when the watch began, by namespace and in any: they tell who serves older connections. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct listener);
	__type(value, u8);
} listeners SEC(".maps");

/* All zeros, never written: what a new record begins as. Too large for a stack of 512 bytes. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_RDONLY_PROG);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct socket_record);
} blank SEC(".maps");

#endif
