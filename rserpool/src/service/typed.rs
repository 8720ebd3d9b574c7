//! Services whose requests, replies and state are types of the program, encoded by serde.

use std::error::Error;
use std::fmt;
use std::future::Future;
use std::marker::PhantomData;

use bytes::Bytes;
use rserpool_proto::Identity;
use rserpool_proto::replay::RequestOptions;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::RequestClient;
use super::requests::RequestError;
use super::{InvalidState, Service};

/// A service with typed requests and replies. The state is the service itself: all that it serializes
/// moves with the session from server to server. [`Typed`] makes it a [`Service`], and
/// [`TypedClient`] is its client.
///
/// ```
/// use rserpool::{Json, TypedService};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Default, Serialize, Deserialize)]
/// struct Account {
///     balance: i64,
/// }
///
/// #[derive(Serialize, Deserialize)]
/// enum Order {
///     Deposit(i64),
///     Withdraw(i64),
/// }
///
/// #[derive(Debug, Serialize, Deserialize, thiserror::Error)]
/// #[error("only {0} are there")]
/// struct Insufficient(i64);
///
/// impl TypedService for Account {
///     type Request = Order;
///     type Reply = i64;
///     type Error = Insufficient;
///     type Codec = Json;
///
///     async fn handle(&mut self, order: Order) -> Result<i64, Insufficient> {
///         match order {
///             Order::Deposit(amount) => self.balance += amount,
///             Order::Withdraw(amount) if amount > self.balance => {
///                 return Err(Insufficient(self.balance));
///             }
///             Order::Withdraw(amount) => self.balance -= amount,
///         }
///         Ok(self.balance)
///     }
/// }
/// # use rserpool::cookie::{KeyRing, Seal};
/// # use rserpool::transport::Memory;
/// # use rserpool::{Network, PoolElement, PoolUser, Registrar, RegistrarConfig, RequestConfig};
/// # use rserpool::{ServiceConfig, Typed, TypedClient, TypedError};
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let network = Network::new(rserpool_tokio::TokioRuntime::current(), Memory::new());
/// # let registrar = Registrar::start(&network, ["192.0.2.1:3863"], RegistrarConfig::default())?;
/// # let registrars = registrar.local_addresses();
/// # let config = ServiceConfig::new(Seal::new("BankPool".parse()?, KeyRing::generate()));
/// # let (stop, grace) = (std::future::pending::<()>(), std::time::Duration::ZERO);
/// // At a server:
/// let element = PoolElement::start(&network, "BankPool", registrars)?;
/// # element.registered().await?;
/// tokio::spawn(element.serve(config, Typed::<Account>::default, stop, grace));
///
/// // At a client:
/// let user = PoolUser::new(&network, registrars)?;
/// let client = user.request_client("BankPool", RequestConfig::default()).await?;
/// let account = TypedClient::<Account>::new(client);
/// assert_eq!(account.request(&Order::Deposit(10)).await?, 10);
/// let refused = account.request(&Order::Withdraw(11)).await;
/// assert!(matches!(refused, Err(TypedError::Service(Insufficient(10)))));
/// # Ok(())
/// # }
/// ```
pub trait TypedService: Serialize + DeserializeOwned + Send + 'static {
    /// A request.
    type Request: Serialize + DeserializeOwned + Send;
    /// The reply to a request.
    type Reply: Serialize + DeserializeOwned + Send;
    /// The error of a request. It is a reply, too: the state is kept as the service left it.
    type Error: Serialize + DeserializeOwned + Error + Send + 'static;
    /// The encoding of requests, replies and the state.
    type Codec: Codec;

    /// Begins the session of a user, see [`Service::begin`]. Called again after each restoring of the
    /// state, which replaces the service.
    fn begin(&mut self, user: Option<&Identity>) {
        let _ = user;
    }

    /// Handles a request: see [`Service::handle`].
    fn handle(
        &mut self,
        request: Self::Request,
    ) -> impl Future<Output = Result<Self::Reply, Self::Error>> + Send;
}

/// An encoding of values.
pub trait Codec: Send + Sync + 'static {
    /// Encodes a value.
    ///
    /// # Errors
    ///
    /// Returns an error if the encoding has no form for the value.
    fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError>;

    /// Decodes a value.
    ///
    /// # Errors
    ///
    /// Returns an error if the bytes are not the encoding of a `T`.
    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError>;
}

/// Error of a [`Codec`].
pub type CodecError = Box<dyn Error + Send + Sync>;

/// JSON, by `serde_json`.
#[cfg(feature = "json")]
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::exhaustive_structs, reason = "a name")]
pub struct Json;

#[cfg(feature = "json")]
impl Codec for Json {
    fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
        Ok(serde_json::to_vec(value)?)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}

/// The compact binary encoding of `postcard`. Both sides need the same version of the types.
#[cfg(feature = "postcard")]
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::exhaustive_structs, reason = "a name")]
pub struct Postcard;

#[cfg(feature = "postcard")]
impl Codec for Postcard {
    fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
        Ok(postcard::to_allocvec(value)?)
    }

    fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
        Ok(postcard::from_bytes(bytes)?)
    }
}

/// A [`TypedService`] as a [`Service`].
///
/// If the reply cannot be encoded, the request fails as if the service had panicked.
#[derive(Debug, Clone, Default)]
pub struct Typed<S> {
    service: S,
    user: Option<Identity>,
}

impl<S: TypedService> Typed<S> {
    /// Returns the service in its initial state.
    #[must_use]
    pub fn new(service: S) -> Self {
        Self { service, user: None }
    }
}

/// First byte of a reply, which gives the kind of the rest: here, the encoded reply of the service.
const REPLY: u8 = 0;
const ERROR: u8 = 1;
/// First byte of a reply whose rest is the text of an error: the service could not decode the
/// request.
const UNREADABLE: u8 = 2;

impl<S: TypedService> Service for Typed<S> {
    fn begin(&mut self, user: Option<&Identity>) {
        self.user = user.cloned();
        self.service.begin(user);
    }

    async fn handle(&mut self, request: Bytes) -> Bytes {
        let (kind, content) = match S::Codec::decode(&request) {
            Ok(request) => match self.service.handle(request).await {
                Ok(reply) => (REPLY, encoded::<S, _>(&reply)),
                Err(error) => (ERROR, encoded::<S, _>(&error)),
            },
            Err(error) => (UNREADABLE, error.to_string().into_bytes()),
        };
        [&[kind][..], &content].concat().into()
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        S::Codec::encode(&self.service).map_err(InvalidState::new)
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        self.service = S::Codec::decode(state).map_err(InvalidState::new)?;
        self.service.begin(self.user.as_ref());
        Ok(())
    }
}

/// Encodes a value of the service. Panics if that is not possible, which fails the request.
#[allow(clippy::panic, reason = "caught around each request, and logged")]
fn encoded<S: TypedService, T: Serialize>(value: &T) -> Vec<u8> {
    match S::Codec::encode(value) {
        Ok(encoded) => encoded,
        Err(error) => panic!("cannot encode {}: {error}", std::any::type_name::<T>()),
    }
}

/// A client of a pool of [`TypedService`]s. Clones share one session.
pub struct TypedClient<S> {
    client: RequestClient,
    service: PhantomData<fn() -> S>,
}

impl<S> Clone for TypedClient<S> {
    fn clone(&self) -> Self {
        Self { client: self.client.clone(), service: PhantomData }
    }
}

impl<S> fmt::Debug for TypedClient<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedClient").field("client", &self.client).finish_non_exhaustive()
    }
}

/// Error of a [`TypedClient`], with the error type of its service.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TypedError<E: Error + 'static> {
    /// The service returned an error.
    #[error("the service returned an error")]
    Service(#[source] E),
    /// The request failed, or the session is over.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The request or its reply cannot be encoded or decoded.
    #[error("cannot encode or decode")]
    Codec(#[source] CodecError),
    /// The service could not decode the request. Contains its reason.
    #[error("the service cannot read the request: {0}")]
    Unreadable(String),
}

impl<S: TypedService> TypedClient<S> {
    /// Returns a client that sends its requests by `client`.
    #[must_use]
    pub fn new(client: RequestClient) -> Self {
        Self { client, service: PhantomData }
    }

    /// Returns the client that sends the requests.
    #[must_use]
    pub fn inner(&self) -> &RequestClient {
        &self.client
    }

    /// Sends a request, and waits for its reply.
    ///
    /// # Errors
    ///
    /// Returns an error if the service returns one, the request fails, or the session is over.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the request may or may not be executed, and its reply is lost.
    pub async fn request(&self, request: &S::Request) -> Result<S::Reply, TypedError<S::Error>> {
        self.request_with(request, self.client.options()).await
    }

    /// Sends a request as [`Self::request`] does, with options of its own.
    ///
    /// # Errors
    ///
    /// Returns an error in the cases of [`Self::request`].
    ///
    /// # Cancel safety
    ///
    /// See [`Self::request`].
    pub async fn request_with(
        &self,
        request: &S::Request,
        options: RequestOptions,
    ) -> Result<S::Reply, TypedError<S::Error>> {
        let request = S::Codec::encode(request).map_err(TypedError::Codec)?;
        let reply = self.client.request_with(request, options).await?;
        let content = reply.get(1..).unwrap_or_default();
        match reply.first() {
            Some(&REPLY) => S::Codec::decode(content).map_err(TypedError::Codec),
            Some(&ERROR) => {
                Err(TypedError::Service(S::Codec::decode(content).map_err(TypedError::Codec)?))
            }
            Some(&UNREADABLE) => {
                Err(TypedError::Unreadable(String::from_utf8_lossy(content).into_owned()))
            }
            _ => Err(TypedError::Codec("not a reply of a typed service".into())),
        }
    }
}

#[cfg(all(test, feature = "json", feature = "postcard"))]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::fmt::Debug;

    use futures::FutureExt;
    use serde::Deserialize;

    use super::*;

    /// A service whose state is the last text, and which fails for empty ones.
    #[derive(Debug, Default, Serialize, Deserialize)]
    struct Last<C> {
        text: String,
        #[serde(skip)]
        codec: PhantomData<C>,
    }

    #[derive(Debug, Serialize, Deserialize, thiserror::Error)]
    #[error("an empty text")]
    struct Empty;

    impl<C: Codec + Default + Debug> TypedService for Last<C> {
        type Request = String;
        type Reply = String;
        type Error = Empty;
        type Codec = C;

        async fn handle(&mut self, request: String) -> Result<String, Empty> {
            match request.is_empty() {
                true => Err(Empty),
                false => Ok(std::mem::replace(&mut self.text, request)),
            }
        }
    }

    fn check<C: Codec>()
    where
        Last<C>: TypedService<Request = String, Codec = C>,
        Typed<Last<C>>: Default,
    {
        let mut service = Typed::<Last<C>>::default();
        let mut handle = |request: Vec<u8>| service.handle(request.into()).now_or_never().unwrap();
        let encoded = |text: &str| C::encode(&text.to_owned()).unwrap();
        assert_eq!(handle(encoded("one")), [&[REPLY][..], &encoded("")].concat());
        assert_eq!(handle(encoded("two")), [&[REPLY][..], &encoded("one")].concat());
        assert_eq!(handle(encoded(""))[0], ERROR);
        assert_eq!(handle(vec![0xff])[0], UNREADABLE);
        let mut next = Typed::<Last<C>>::default();
        next.restore(&service.save().unwrap()).unwrap();
        assert_eq!(next.service.text, "two");
        let refused = next.restore(&[0xff]).unwrap_err();
        assert!(refused.source().is_some(), "it says why");
        assert_eq!(next.service.text, "two");
    }

    #[test]
    fn values_pass_through_each_codec_and_what_is_unreadable_is_told() {
        check::<Json>();
        check::<Postcard>();
    }
}
