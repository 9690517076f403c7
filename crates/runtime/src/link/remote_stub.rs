/// Stand-in until the store's remote backend lands.
pub(crate) mod remote {
    use futures::future::BoxFuture;
    use tokio::io::{AsyncRead, AsyncWrite};
    /// Both directions.
    pub trait Io: AsyncRead + AsyncWrite {}
    impl<T: AsyncRead + AsyncWrite> Io for T {}
    /// A byte stream.
    pub type BoxIo = Box<dyn Io + Send + Unpin>;
    /// Opens streams.
    pub trait OpenStream: Send + Sync {
        /// Opens one.
        fn open(&self) -> BoxFuture<'_, std::io::Result<BoxIo>>;
    }
}
