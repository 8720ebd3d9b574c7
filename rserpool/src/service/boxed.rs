//! A type that holds services of different types.

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use rserpool_proto::Identity;

use super::{InvalidState, Service};

/// A [`Service`] whose type is known only at run time. [`Service`] itself is not dyn-compatible.
/// Every [`Service`] implements `DynService`, and a [`BoxService`] implements [`Service`].
///
/// ```
/// # use rserpool::{BoxService, Bytes, InvalidState, Service};
/// # #[derive(Default)]
/// # struct Echo;
/// # impl Service for Echo {
/// #     async fn handle(&mut self, request: Bytes) -> Bytes { request }
/// #     fn save(&self) -> Result<Vec<u8>, InvalidState> { Ok(Vec::new()) }
/// #     fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> { Ok(()) }
/// # }
/// # #[derive(Default)]
/// # struct Upper(Echo);
/// # impl Service for Upper {
/// #     async fn handle(&mut self, request: Bytes) -> Bytes { request.to_ascii_uppercase().into() }
/// #     fn save(&self) -> Result<Vec<u8>, InvalidState> { Ok(Vec::new()) }
/// #     fn restore(&mut self, _: &[u8]) -> Result<(), InvalidState> { Ok(()) }
/// # }
/// fn named(name: &str) -> Option<BoxService> {
///     match name {
///         "echo" => Some(Box::new(Echo::default())),
///         "upper" => Some(Box::new(Upper::default())),
///         _ => None,
///     }
/// }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// # let mut upper = named("upper").expect("there is one");
/// # assert_eq!(upper.handle("one".into()).await, "ONE");
/// # }
/// ```
pub trait DynService: Send + 'static {
    /// Begins a session, as [`Service::begin`] does.
    fn begin_boxed(&mut self, user: Option<&Identity>);

    /// Handles a request, as [`Service::handle`] does.
    fn handle_boxed(&mut self, request: Bytes) -> BoxFuture<'_, Bytes>;

    /// Returns the state, as [`Service::save`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if the state cannot be saved.
    fn save_boxed(&self) -> Result<Vec<u8>, InvalidState>;

    /// Restores a state, as [`Service::restore`] does.
    ///
    /// # Errors
    ///
    /// Returns an error if the service cannot restore the state.
    fn restore_boxed(&mut self, state: &[u8]) -> Result<(), InvalidState>;
}

/// A service of any type.
pub type BoxService = Box<dyn DynService>;

impl<S: Service> DynService for S {
    fn begin_boxed(&mut self, user: Option<&Identity>) {
        self.begin(user);
    }

    fn handle_boxed(&mut self, request: Bytes) -> BoxFuture<'_, Bytes> {
        self.handle(request).boxed()
    }

    fn save_boxed(&self) -> Result<Vec<u8>, InvalidState> {
        self.save()
    }

    fn restore_boxed(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        self.restore(state)
    }
}

impl Service for BoxService {
    fn begin(&mut self, user: Option<&Identity>) {
        (**self).begin_boxed(user);
    }

    async fn handle(&mut self, request: Bytes) -> Bytes {
        (**self).handle_boxed(request).await
    }

    fn save(&self) -> Result<Vec<u8>, InvalidState> {
        (**self).save_boxed()
    }

    fn restore(&mut self, state: &[u8]) -> Result<(), InvalidState> {
        (**self).restore_boxed(state)
    }
}
