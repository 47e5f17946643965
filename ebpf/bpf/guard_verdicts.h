/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The guard's verdicts, one counter per verdict, layer and CPU. src/guard/verdicts.rs has the same list. */
#ifndef POLLUX_GUARD_VERDICTS_H
#define POLLUX_GUARD_VERDICTS_H

/* Where a packet is looked at. */
enum guard_layer {
	LAYER_NETFILTER,
	LAYER_EGRESS,

	LAYER_COUNT,
};

/* What a socket of ours is. */
enum socket_kind {
	SOCKET_XSK = 1,
	SOCKET_IKE = 2,
};

enum guard_verdict {
	GUARD_PASS_WORKER, /* from a worker's socket, or handed to the kernel by a worker */
	GUARD_PASS_LAN,    /* out of a lan port, to a local prefix or to the link alone */
	GUARD_PASS_OWN,  /* the gateway's own, outside narrow selectors, to a remote prefix that names nobody
			  */
	GUARD_PASS_LINK, /* without a source, to the link alone */
	GUARD_PASS_ND,   /* neighbour discovery */
	GUARD_PASS_DHCP, /* the gateway's own DHCP */
	GUARD_PASS_IKE,  /* IKE of control's sockets */
	GUARD_PASS_BYPASS, /* a policy lets it pass in clear */

	GUARD_DROP_CLEAR,     /* in clear, though its pair is protected */
	GUARD_DROP_TAG_DEPTH, /* more VLAN tags than we look through: cannot be judged */

	GUARD_VERDICT_COUNT,

	GUARD_PASS = -1, /* not of a protected pair; not counted */
};

#endif
