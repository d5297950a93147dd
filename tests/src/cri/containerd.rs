//! What containerd serves on its socket beside CRI: image records with labels. Its content store is empty, so that nobody
//! can tell how far a pull is.

use coral_proto::containerd::{
    content_v1::{
        ListContentRequest, ListContentResponse, ListStatusesRequest, ListStatusesResponse, ReadContentRequest,
        ReadContentResponse, content_server::Content,
    },
    images_v1::{
        DeleteImageRequest, Descriptor, Empty as Nothing, Image, ListImagesRequest, ListImagesResponse,
        UpdateImageRequest, UpdateImageResponse, images_server::Images,
    },
};
use futures::stream::{self, Empty};
use tonic::{Request, Response, Status};

use super::{
    server::Services,
    state::{Labels, Record},
};

/// The namespace in which the CRI plugin keeps its images.
const NAMESPACE: &str = "k8s.io";

#[tonic::async_trait]
impl Images for Services {
    async fn list(&self, request: Request<ListImagesRequest>) -> Result<Response<ListImagesResponse>, Status> {
        in_namespace(&request)?;
        self.shared.thawed().await;
        let records = self.shared.state().records(&request.into_inner().filters)?;
        Ok(Response::new(ListImagesResponse {
            images: records.into_iter().map(image).collect(),
        }))
    }

    /// containerd looks at the target of an update without asking whether there is one, and ends when there is none.
    async fn update(&self, request: Request<UpdateImageRequest>) -> Result<Response<UpdateImageResponse>, Status> {
        in_namespace(&request)?;
        self.shared.thawed().await;
        let UpdateImageRequest {
            image: wanted,
            update_mask,
        } = request.into_inner();
        let wanted = wanted.ok_or_else(|| Status::invalid_argument("the request names no image"))?;
        if wanted.target.is_none() {
            return Err(self.disconnect().await);
        }
        let mut changes = Labels::new();
        for path in update_mask.unwrap_or_default().paths {
            let label = path
                .strip_prefix("labels.")
                .ok_or_else(|| Status::invalid_argument("only labels can be changed here"))?;
            let value = wanted.labels.get(label).cloned().unwrap_or_default();
            changes.insert(label.to_owned(), value);
        }
        let record = self.shared.state().label(&wanted.name, changes)?;
        Ok(Response::new(UpdateImageResponse {
            image: Some(image(record)),
        }))
    }

    async fn delete(&self, request: Request<DeleteImageRequest>) -> Result<Response<Nothing>, Status> {
        in_namespace(&request)?;
        self.shared.thawed().await;
        self.shared.state().delete_record(&request.into_inner().name)?;
        Ok(Response::new(Nothing {}))
    }
}

#[tonic::async_trait]
impl Content for Services {
    type ListStream = Empty<Result<ListContentResponse, Status>>;
    type ReadStream = Empty<Result<ReadContentResponse, Status>>;

    async fn list(&self, request: Request<ListContentRequest>) -> Result<Response<Self::ListStream>, Status> {
        in_namespace(&request)?;
        self.shared.thawed().await;
        Ok(Response::new(stream::empty()))
    }

    async fn read(&self, request: Request<ReadContentRequest>) -> Result<Response<Self::ReadStream>, Status> {
        in_namespace(&request)?;
        self.shared.thawed().await;
        Err(Status::not_found("there is no such blob"))
    }

    async fn list_statuses(
        &self,
        request: Request<ListStatusesRequest>,
    ) -> Result<Response<ListStatusesResponse>, Status> {
        in_namespace(&request)?;
        self.shared.thawed().await;
        Ok(Response::new(ListStatusesResponse::default()))
    }
}

/// Every call says which namespace it is about.
fn in_namespace<T>(request: &Request<T>) -> Result<(), Status> {
    let namespace = request.metadata().get("containerd-namespace");
    if namespace.is_some_and(|namespace| namespace == NAMESPACE) {
        Ok(())
    } else {
        Err(Status::failed_precondition("namespace is required"))
    }
}

fn image(record: Record) -> Image {
    Image {
        name: record.name,
        labels: record.labels.into_iter().collect(),
        target: Some(Descriptor {
            media_type: "application/vnd.oci.image.index.v1+json".to_owned(),
            digest: record.digest,
            size: 1_000,
        }),
    }
}
