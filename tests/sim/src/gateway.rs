//! One gateway: an endpoint, its data plane, and the lives it has had.

use core::net::IpAddr;
use std::sync::Arc;

use pollux_ike::config::{ChildConfig, EndpointConfig};
use pollux_ike::crypto::Provider;
use pollux_ike::endpoint::Routes;
use pollux_ike::{Endpoint, Instant};
use pollux_pair::Seeded;

use crate::data_plane::DataPlane;
use crate::scenario::Revision;

/// One gateway.
pub(crate) struct Gateway {
    pub(crate) endpoint: Endpoint,
    pub(crate) data_plane: DataPlane,
    pub(crate) rng: Seeded,
    /// Lives of the control process: answers to an earlier one reach nobody.
    pub(crate) life: u32,
    config: Arc<EndpointConfig>,
    /// What the last reload has changed.
    pub(crate) revision: Revision,
    provider: Arc<dyn Provider>,
    /// The address that the routes give to what it sends.
    address: IpAddr,
}

impl Gateway {
    pub(crate) fn new(
        config: EndpointConfig,
        provider: Arc<dyn Provider>,
        address: IpAddr,
        rng: &mut Seeded,
    ) -> Self {
        let (config, data_plane) = (Arc::new(config), DataPlane::new(rng.part()));
        let allocator = Box::new(data_plane.allocator.clone());
        let endpoint = Endpoint::new(config.clone(), provider.clone(), allocator, routes(address));
        Self {
            endpoint,
            data_plane,
            rng: rng.part(),
            life: 0,
            config,
            revision: Revision::First,
            provider,
            address,
        }
    }

    /// The control process dies and comes back; the data plane does not notice.
    pub(crate) fn restart_control(&mut self) {
        self.data_plane.allocator.restart(self.data_plane.inbound_spis());
        let allocator = Box::new(self.data_plane.allocator.clone());
        let routes = routes(self.address);
        self.endpoint = Endpoint::new(self.config.clone(), self.provider.clone(), allocator, routes);
        self.life += 1;
    }

    /// Another configuration, for the endpoint as well as for what starts after it.
    pub(crate) fn configure(&mut self, config: EndpointConfig, revision: Revision) -> Arc<EndpointConfig> {
        self.config = Arc::new(config);
        self.revision = revision;
        self.config.clone()
    }

    /// The configured children.
    pub(crate) fn children(&self) -> impl Iterator<Item = &Arc<ChildConfig>> {
        self.config.connections.iter().flat_map(|connection| &connection.children)
    }

    /// When the endpoint wants a turn.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.endpoint.next_deadline()
    }
}

/// There is one way out, and it leaves with this address.
fn routes(address: IpAddr) -> Box<dyn Routes + Send> {
    Box::new(move |_: IpAddr| Some(address))
}
