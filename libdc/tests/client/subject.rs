//! The blocking or the asynchronous client under test, behind one interface.

use libdc::client::{Error, SessionOptions, blocking};
use libdc::net::address::Address;
use std::time::Duration;

/// Runs `test` with a constructor of each kind of client.
pub(crate) fn each(test: impl Fn(&dyn Fn(Address, SessionOptions) -> ClientSubject)) {
    test(&|address, options| ClientSubject::new(ClientKind::Blocking, address, options));
    #[cfg(feature = "async")]
    test(&|address, options| ClientSubject::new(ClientKind::Asynchronous, address, options));
}

pub(crate) struct ClientSubject {
    address: Address,
    kind: ClientKind,
    client: AnyClient,
}

#[derive(Clone, Copy)]
enum ClientKind {
    Blocking,
    #[cfg(feature = "async")]
    Asynchronous,
}

enum AnyClient {
    Blocking(blocking::Client),
    #[cfg(feature = "async")]
    Asynchronous(libdc::client::Client, tokio::runtime::Runtime),
}

/// Calls a method of either client.
macro_rules! either {
    ($subject:expr, $client:ident => $call:expr) => {
        match &mut $subject.client {
            AnyClient::Blocking($client) => $call,
            #[cfg(feature = "async")]
            AnyClient::Asynchronous($client, runtime) => runtime.block_on($call),
        }
    };
}

#[cfg(feature = "async")]
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

impl ClientSubject {
    fn new(kind: ClientKind, address: Address, options: SessionOptions) -> Self {
        let client = match kind {
            ClientKind::Blocking => AnyClient::Blocking(blocking::Client::new(address.clone(), options)),
            #[cfg(feature = "async")]
            ClientKind::Asynchronous => {
                AnyClient::Asynchronous(libdc::client::Client::new(address.clone(), options), runtime())
            }
        };
        Self { address, kind, client }
    }

    /// Another client of the same kind and address, connected at once if its mode requires that.
    pub(crate) fn connect_another(&self, options: SessionOptions) -> Result<Self, Error> {
        let address = self.address.clone();
        let client = match self.kind {
            ClientKind::Blocking => AnyClient::Blocking(blocking::Client::connect(address.clone(), options)?),
            #[cfg(feature = "async")]
            ClientKind::Asynchronous => {
                let runtime = runtime();
                let client = runtime.block_on(libdc::client::Client::connect(address.clone(), options))?;
                AnyClient::Asynchronous(client, runtime)
            }
        };
        Ok(Self { address, kind: self.kind, client })
    }

    pub(crate) fn change_timeout(&mut self, timeout: Duration) {
        match &mut self.client {
            AnyClient::Blocking(client) => client.set_timeout(timeout),
            #[cfg(feature = "async")]
            AnyClient::Asynchronous(client, _) => client.set_timeout(timeout),
        }
    }

    pub(crate) fn add(&mut self, id: &[u8], session: &[u8], timeout: Duration) -> Result<(), Error> {
        either!(self, client => client.add(id, session, timeout))
    }

    pub(crate) fn get(&mut self, id: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        either!(self, client => client.get(id))
    }

    pub(crate) fn remove(&mut self, id: &[u8]) -> Result<bool, Error> {
        either!(self, client => client.remove(id))
    }

    pub(crate) fn have(&mut self, id: &[u8]) -> Result<bool, Error> {
        either!(self, client => client.have(id))
    }
}
