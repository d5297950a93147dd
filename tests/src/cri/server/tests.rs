use std::time::Duration;

use coral_proto::runtime_v1::{
    ImageSpec, ListImagesRequest, PullImageRequest, VersionRequest, image_service_client::ImageServiceClient,
    runtime_service_client::RuntimeServiceClient,
};
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::{
    cri::{Catalogue, Counts, FakeRuntime, Flavour, Outcome, Trouble},
    wait::{Look, eventually},
};

const APP: &str = "registry.example/app:v1";

fn runtime() -> FakeRuntime {
    FakeRuntime::start(Flavour::Containerd, Catalogue::of_everything(1_000)).unwrap()
}

fn channel(runtime: &FakeRuntime) -> Channel {
    Endpoint::from_shared(runtime.endpoint()).unwrap().connect_lazy()
}

async fn pull(channel: Channel) -> Result<(), Code> {
    let request = PullImageRequest {
        image: Some(ImageSpec {
            image: APP.to_owned(),
            ..ImageSpec::default()
        }),
        auth: None,
    };
    let answer = ImageServiceClient::new(channel).pull_image(request).await;
    answer.map(drop).map_err(|status| status.code())
}

async fn counts_become(runtime: &FakeRuntime, what: &str, condition: impl Fn(Counts) -> bool) {
    eventually(what, Duration::from_secs(10), async || {
        let counts = runtime.counts();
        Ok(if condition(counts) {
            Look::Done(())
        } else {
            Look::NotYet(counts)
        })
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn both_services_answer() {
    let runtime = runtime();
    let channel = channel(&runtime);
    let version = RuntimeServiceClient::new(channel.clone())
        .version(VersionRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(version.runtime_name, "containerd");
    runtime.script(APP, [Outcome::Fail(Trouble::NotFound)]);
    assert_eq!(pull(channel.clone()).await, Err(Code::NotFound));
    assert_eq!(pull(channel).await, Ok(()));
    assert!(runtime.holds(APP));
}

#[tokio::test]
async fn a_list_may_be_larger_than_six_megabytes() {
    let runtime = runtime();
    runtime.fill(20_000);
    let mut client = ImageServiceClient::new(channel(&runtime)).max_decoding_message_size(usize::MAX);
    let answer = client
        .list_images(ListImagesRequest::default())
        .await
        .unwrap()
        .into_inner();
    let bytes: usize = answer
        .images
        .iter()
        .map(|image| 2 * image.id.len() + image.repo_tags[0].len() + image.repo_digests[0].len())
        .sum();
    assert_eq!(answer.images.len(), 20_000);
    assert!(bytes > 6_000_000, "{bytes}");
}

#[tokio::test]
async fn a_call_that_is_given_up_is_a_cancelled_pull() {
    let runtime = runtime();
    runtime.script(APP, [Outcome::Hang]);
    let call = tokio::spawn(pull(channel(&runtime)));
    counts_become(&runtime, "the pull to begin", |counts| counts.running == 1).await;
    call.abort();
    counts_become(&runtime, "the pull to end", |counts| {
        counts.cancelled == 1 && counts.running == 0
    })
    .await;
}

#[tokio::test]
async fn a_broken_connection_ends_every_pull_on_it() {
    let runtime = runtime();
    runtime.script(APP, [Outcome::Hang, Outcome::Disconnect]);
    let channel = channel(&runtime);
    let hanging = tokio::spawn(pull(channel.clone()));
    counts_become(&runtime, "the first pull to begin", |counts| counts.running == 1).await;
    assert!(pull(channel.clone()).await.is_err());
    assert!(hanging.await.unwrap().is_err());
    counts_become(&runtime, "both pulls to end", |counts| {
        counts.cut == 2 && counts.running == 0
    })
    .await;
    assert_eq!(pull(channel).await, Ok(()));
}

#[tokio::test]
async fn a_restarted_runtime_has_its_socket_and_its_images() {
    let runtime = runtime();
    let channel = channel(&runtime);
    pull(channel.clone()).await.unwrap();
    runtime.script(APP, [Outcome::Hang]);
    let hanging = tokio::spawn(pull(channel.clone()));
    counts_become(&runtime, "the pull to begin", |counts| counts.running == 1).await;
    let endpoint = runtime.endpoint();
    runtime.stop().await;
    assert!(hanging.await.unwrap().is_err());
    counts_become(&runtime, "the pull to end", |counts| {
        counts.cut == 1 && counts.running == 0
    })
    .await;
    assert!(pull(channel.clone()).await.is_err());
    runtime.resume().unwrap();
    assert_eq!((runtime.endpoint(), runtime.holds(APP)), (endpoint, true));
    assert_eq!(pull(channel).await, Ok(()));
}

#[tokio::test]
async fn a_frozen_runtime_answers_when_it_is_over() {
    let runtime = runtime();
    runtime.set_frozen(true);
    let mut call = tokio::spawn(pull(channel(&runtime)));
    assert!(
        tokio::time::timeout(Duration::from_millis(200), &mut call)
            .await
            .is_err()
    );
    runtime.set_frozen(false);
    assert_eq!(call.await.unwrap(), Ok(()));
}
