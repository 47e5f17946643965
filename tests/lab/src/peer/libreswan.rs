//! libreswan in a virtual machine, with the ESP of the machine's kernel.

use anyhow::{Context, Result};

use super::vm::Vm;
use crate::ike::{NAME, SECRET};
use crate::world::{Family, Side};

/// A running pluto.
#[derive(Debug)]
pub struct Pluto<'v> {
    vm: &'v Vm,
}

/// What libreswan calls the proposals that it is to use.
#[derive(Clone, Copy, Debug)]
pub struct Proposals<'a> {
    /// `ike =`.
    pub ike: &'a str,
    /// `esp =`.
    pub esp: &'a str,
    /// Rekeys of Child SAs by the group of the IKE SA.
    pub pfs: bool,
    /// Extended sequence numbers.
    pub esn: bool,
    /// ESP in UDP without a NAT.
    pub encap: bool,
}

/// The guest's databases of keys are made at the first start; nothing asks for a password.
const START: &str = "mkdir -p /run/pluto /var/lib/ipsec/nss
[ -e /var/lib/ipsec/nss/cert9.db ] || ipsec initnss >/dev/null
ipsec pluto --config /etc/ipsec.conf --logfile /tmp/pluto.log
for i in $(seq 100); do [ -S /run/pluto/pluto.ctl ] && break; sleep .1; done
ipsec whack --listen";

impl<'v> Pluto<'v> {
    /// Starts pluto, with no connection yet.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(vm: &'v Vm) -> Result<Self> {
        vm.write("/etc/ipsec.conf", "config setup\n  logfile=/tmp/pluto.log\n")?;
        vm.write(
            "/etc/ipsec.secrets",
            &format!("@gateway-b.example @gateway-a.example : PSK \"{SECRET}\"\n"),
        )?;
        vm.sh(START)?;
        Ok(Self { vm })
    }

    /// Takes the connection in the place of the one before, as gateway b with the address `outer`.
    ///
    /// # Errors
    /// If it does not like it.
    pub fn load(&self, outer: &str, proposals: Proposals<'_>) -> Result<()> {
        let yes = |on: bool| if on { "yes" } else { "no" };
        let Proposals { ike, esp, pfs, esn, encap } = proposals;
        let [pfs, esn, encap] = [pfs, esn, encap].map(yes);
        let (a, prefixes) =
            (Side::A.outer(Family::V4), [Side::B, Side::A].map(|side| side.prefix(Family::V4)));
        let text = format!(
            "config setup\n  logfile=/tmp/pluto.log\nconn {NAME}\n  left={outer}\n  leftid=@gateway-b.example\n  leftsubnet={}\n  \
             leftupdown=%disabled\n  right={a}\n  rightid=@gateway-a.example\n  rightsubnet={}\n  authby=secret\n  \
             keyexchange=ikev2\n  ike={ike}\n  esp={esp}\n  esn={esn}\n  encapsulation={encap}\n  pfs={pfs}\n  auto=ignore\n",
            prefixes[0], prefixes[1],
        );
        self.vm.write("/etc/ipsec.conf", &text)?;
        self.vm.sh(&format!("ipsec add {NAME}")).map(drop).with_context(|| self.log())
    }

    /// Brings the connection up.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn up(&self) -> Result<()> {
        self.vm.sh(&format!("timeout 50 ipsec up {NAME}")).map(drop).with_context(|| self.log())
    }

    /// Deletes what it has brought up, which it would bring up again if the other end deleted it.
    ///
    /// # Errors
    /// If pluto refuses.
    pub fn down(&self) -> Result<()> {
        self.vm.sh(&format!("timeout 50 ipsec down {NAME}")).map(drop)
    }

    /// Rekeys the IKE SA or the Child SA: `what` is `ike` or `child`.
    ///
    /// # Errors
    /// If pluto refuses.
    pub fn rekey(&self, what: &str) -> Result<()> {
        self.vm.sh(&format!("timeout 50 ipsec whack --rekey-{what} --name {NAME}")).map(drop)
    }

    /// Whether it has no SA.
    ///
    /// # Errors
    /// If pluto does not answer.
    pub fn is_empty(&self) -> Result<bool> {
        Ok(self.vm.sh("ipsec showstates")?.trim().is_empty())
    }

    /// Makes it ask every initiator for a cookie, or not.
    ///
    /// # Errors
    /// If pluto does not answer.
    pub fn demand_cookies(&self, demand: bool) -> Result<()> {
        let state = if demand { "busy" } else { "unlimited" };
        self.vm.sh(&format!("ipsec whack --ddos-{state}")).map(drop)
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        self.vm.sh("tail -40 /tmp/pluto.log; ipsec showstates; ip xfrm state").unwrap_or_default()
    }
}

impl Drop for Pluto<'_> {
    fn drop(&mut self) {
        let _ = self.vm.sh("ipsec whack --shutdown; ip xfrm state flush; ip xfrm policy flush");
    }
}
