// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * The second layer of the guard: TCX at the egress of every device but `lo` and `pollux0`, at the head of the
 * chain. It sees what netfilter does not: packet sockets, bridged frames, and whatever is sent below IP. It
 * sees nothing of what goes round the queueing discipline: AF_XDP sockets (ours among them) and packet
 * sockets with PACKET_QDISC_BYPASS.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "abi.h"
#include "verdicts.h"
#include "guard_verdicts.h"
#include "maps.h"
#include "lookup.h"

/* Newer than the headers that we build with: enum tcx_action_base of linux/bpf.h. */
#define TCX_NEXT -1
#define TCX_DROP 2

struct reader {
	struct __sk_buff *skb;
	__u32 ip;    /* offset of the IP header in an Ethernet frame */
	bool layer3; /* no link-layer header: the kernel knows where the IP header is */
};

static __always_inline bool read_at(const struct reader *r, __u32 offset, void *to, __u32 length)
{
	if (r->layer3)
		return !bpf_skb_load_bytes_relative(r->skb, offset, to, length, BPF_HDR_START_NET);
	return !bpf_skb_load_bytes(r->skb, r->ip + offset, to, length);
}

#include "guard.h"

#define LAYER LAYER_EGRESS

static __always_inline int verdict_of(const struct reader *r, __be16 ethertype)
{
	struct sent s = {
		.in = r->skb->ingress_ifindex,
		.out = r->skb->ifindex,
	};

	if (ethertype == bpf_htons(ETH_P_IP)) {
		if (!read_ipv4(r, &s))
			return TCX_NEXT;
	} else if (ethertype == bpf_htons(ETH_P_IPV6)) {
		if (!read_ipv6(r, &s))
			return TCX_NEXT;
	} else {
		return TCX_NEXT;
	}
	s.cookie = bpf_get_socket_cookie(r->skb);
	enum guard_verdict verdict = judge(r, &s);
	if (verdict == GUARD_PASS)
		return TCX_NEXT;
	count(LAYER, verdict);
	return verdict >= GUARD_DROP_CLEAR ? TCX_DROP : TCX_NEXT;
}

SEC("classifier")
int guard_ethernet(struct __sk_buff *skb)
{
	struct reader r = {.skb = skb, .ip = offsetof(struct ethhdr, h_proto)};
	__be16 ethertype = 0;

	for (int i = 0; i <= VLAN_TAGS_MAX; i++) {
		if (bpf_skb_load_bytes(skb, r.ip, &ethertype, sizeof(ethertype)))
			return TCX_NEXT;
		r.ip += sizeof(ethertype);
		if (ethertype != bpf_htons(ETH_P_8021Q) && ethertype != bpf_htons(ETH_P_8021AD))
			return verdict_of(&r, ethertype);
		r.ip += 2; /* the tag's control information */
	}
	count(LAYER, GUARD_DROP_TAG_DEPTH);
	return TCX_DROP;
}

/* For devices without a link-layer header: TUN, PPP, WireGuard, tunnels. */
SEC("classifier")
int guard_layer3(struct __sk_buff *skb)
{
	struct reader r = {.skb = skb, .layer3 = true};

	return verdict_of(&r, (__be16)skb->protocol);
}

char _license[] SEC("license") = "Dual BSD/GPL";
