/* SPDX-License-Identifier: GPL-2.0 OR Apache-2.0 */
/* Which connections are meant. */
#ifndef ACKWARD_BYPASS_SCOPE_H
#define ACKWARD_BYPASS_SCOPE_H

#include "bypass_state.h"
#include "cgroup.h"

#define AF_INET 2

static __always_inline void mapped(u32 address[4], const struct sock_common *common, bool remote)
{
	if (BPF_CORE_READ(common, skc_family) == AF_INET) {
		address[0] = address[1] = 0;
		address[2] = bpf_htonl(0xffff);
		address[3] = remote ? BPF_CORE_READ(common, skc_daddr) : BPF_CORE_READ(common, skc_rcv_saddr);
	} else if (remote) {
		BPF_CORE_READ_INTO((struct in6_addr *)address, common, skc_v6_daddr);
	} else {
		BPF_CORE_READ_INTO((struct in6_addr *)address, common, skc_v6_rcv_saddr);
	}
}

static __always_inline bool in_network(const struct network *network, const u32 address[4])
{
	for (int i = 0; i < 4; i++)
		if ((address[i] ^ network->address[i]) & network->mask[i])
			return false;
	return true;
}

static __always_inline bool in_ports(const struct ports *ports, u16 port)
{
	return port >= ports->first && port <= ports->last;
}

static __always_inline u64 netns_of(const struct sock_common *common)
{
	struct net___bypass *net = (void *)BPF_CORE_READ((const struct sock_common___bypass *)common, skc_net.net);

	return BPF_CORE_READ(net, net_cookie);
}

/* The criteria that one end meets. `owner`: the socket whose cgroup counts, the listener for a SYN. */
static __always_inline u32 met_by(const struct scope *scope, const struct sock_common *common,
				  const struct sock___bypass *owner, bool server, u16 port)
{
	u32 address[4], met = 0;

	if (scope->asked & OF_PORT && in_ports(&scope->port, port))
		met |= OF_PORT;
	if (scope->asked & OF_NETNS && netns_of(common) == scope->netns)
		met |= OF_NETNS;
	if (scope->asked & OF_CGROUP && below_cgroup(cgroup_of(owner), scope->cgroup))
		met |= OF_CGROUP;
	if (scope->asked & TO_NETWORK) {
		mapped(address, common, !server);
		if (in_network(&scope->to, address))
			met |= TO_NETWORK;
	}
	if (scope->asked & FROM_NETWORK) {
		mapped(address, common, server);
		if (in_network(&scope->from, address))
			met |= FROM_NETWORK;
	}
	return met;
}

static __always_inline bool forbidden(const struct scope *scope, const struct sock_common *common, u16 port)
{
	u32 local[4], remote[4];

	for (int i = 0; i < RULES; i++)
		if (scope->forbidden_ports[i].first && in_ports(&scope->forbidden_ports[i], port))
			return true;
	if (!scope->forbidden_networks)
		return false;
	mapped(local, common, false);
	mapped(remote, common, true);
	for (int i = 0; i < RULES; i++)
		if (i < scope->forbidden_networks && (in_network(&scope->forbidden[i], local) ||
						      in_network(&scope->forbidden[i], remote)))
			return true;
	return false;
}

#endif
