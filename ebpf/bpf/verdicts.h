/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * One verdict per frame, one counter per verdict, role and CPU. src/verdicts.rs has the same list with
 * names and texts; tests/steer.rs compares the two and raises each of them.
 */
#ifndef POLLUX_VERDICTS_H
#define POLLUX_VERDICTS_H

enum verdict {
	/* to the kernel, untouched */
	PASS_NO_ROLE,    /* on an interface that nobody declared */
	PASS_NON_IP,     /* ARP, LLDP, … */
	PASS_MALFORMED,  /* an IP header that the kernel itself refuses */
	PASS_OTHER_HOST, /* to the MAC address of another host: a switch floods, or the port is promiscuous */
	PASS_SCOPE,      /* link-local, broadcast, multicast that no policy protects, unspecified source */
	PASS_LOCAL,      /* for an address of the gateway */
	PASS_IKE,        /* UDP 500, or UDP 4500 with the zero marker */
	PASS_NATT,       /* UDP 4500 that is neither IKE nor ESP: STUN, DTLS, RTP, … */
	PASS_ND,         /* unicast neighbour discovery with an address of the gateway */
	PASS_DHCP,       /* an answer to the gateway's DHCP client */
	PASS_FRAGMENT,   /* a fragment for an address of the gateway: the kernel reassembles */
	PASS_OTHER,      /* nothing of ours */

	/* to the worker of this queue */
	XSK_ESP,       /* ESP for the gateway */
	XSK_ESP_UDP,   /* ESP in UDP 4500 for the gateway */
	XSK_CLEAR,     /* came in clear from the wan though its pair is protected: the worker discards it */
	XSK_PROTECTED, /* goes into a tunnel */
	XSK_FRAGMENT,  /* a fragment that goes into a tunnel, if its policy asks for no ports */

	/* dropped here */
	DROP_KEEPALIVE, /* NAT keepalive (RFC 3948 §2.3) */
	DROP_TAGGED,    /* protected, but inside a VLAN tag, which no worker reads */
	DROP_MULTICAST, /* multicast that routers forward, inside a protected pair: no SA takes it */
	DROP_GROUP_MAC, /* protected unicast in a frame to a group address (RFC 1812 §5.3.4) */
	DROP_TAG_DEPTH, /* more VLAN tags than we look through: cannot be judged */
	DROP_NO_XSK,    /* for a worker, but no socket is bound to this queue */

	VERDICT_COUNT,
};

#endif
