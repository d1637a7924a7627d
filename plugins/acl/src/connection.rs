//! What is remembered of a connection: who it is, and what that may do.

use std::sync::Arc;

use plugin_api::{Error, State, StateView};
use plugin_support::permissions::Permissions;
use serde::{Deserialize, Serialize};

use crate::policy::{Login, Policy, Refusal};

/// The version of what is exported; there has been no other.
const SCHEMA: u32 = 1;

/// Who it is, and what it may do; nothing until it has been let in.
#[derive(Debug, Default)]
pub struct Connection {
    identity: Option<Identity>,
    /// `None`: nothing, also for somebody who was let in and whom a later configuration does not know.
    permissions: Option<Arc<Permissions>>,
    /// The configuration that the permissions are from.
    configuration: u64,
}

/// Kept, as a later configuration may say something else about the same client.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    username: Option<Box<str>>,
    client_id: Box<str>,
    is_client_id_assigned: bool,
    /// It was let in for its certificate.
    #[serde(default)]
    has_certificate: bool,
}

impl Connection {
    /// Lets somebody in.
    pub(crate) fn sign_in(&mut self, login: &Login<'_>, policy: &Policy, configuration: u64) -> Result<(), Refusal> {
        self.permissions = Some(policy.connect(login)?);
        self.configuration = configuration;
        self.identity = Some(Identity {
            username: login.username.map(Into::into),
            client_id: login.client_id.into(),
            is_client_id_assigned: login.is_client_id_assigned,
            has_certificate: policy.goes_by_certificate(login),
        });
        Ok(())
    }

    pub(crate) fn is_of(&self, configuration: u64) -> bool {
        self.configuration == configuration
    }

    /// Looks up again what it may do: for who it was when it was let in, without its password, which was right then.
    pub(crate) fn renew(&mut self, policy: &Policy, configuration: u64) {
        let identity = self.identity.as_ref();
        self.permissions = identity.and_then(|identity| policy.permissions(&identity.login()).ok());
        self.configuration = configuration;
    }

    pub(crate) fn permissions(&self) -> Option<&Permissions> {
        self.permissions.as_deref()
    }

    pub(crate) fn export(&self) -> State {
        // Text and flags can always be written as JSON.
        State::new(SCHEMA, serde_json::to_vec(&self.identity).unwrap_or_default())
    }

    pub(crate) fn import(state: StateView<'_>, policy: &Policy, configuration: u64) -> Result<Self, Error> {
        if state.version() != SCHEMA {
            return Err(format!("a state of schema {}, and this version knows {SCHEMA}", state.version()).into());
        }
        let mut connection = Self { identity: serde_json::from_slice(state.bytes())?, ..Self::default() };
        connection.renew(policy, configuration);
        Ok(connection)
    }
}

impl Identity {
    fn login(&self) -> Login<'_> {
        Login {
            username: self.username.as_deref(),
            password: None,
            client_id: &self.client_id,
            is_client_id_assigned: self.is_client_id_assigned,
            will_topic: None,
            has_method: false,
            has_certificate: self.has_certificate,
        }
    }
}
