//! Lists: tags, repositories, and what refers to a manifest.

use http::{HeaderMap, Method, StatusCode, Uri, header::LINK};
use serde::Deserialize;

use crate::{
    error::{Error, Result},
    manifest::{Descriptor, Document, Manifest},
    origin::join,
    repository::{Access, MAX_DOCUMENT_BYTES, Repository},
    transport::Call,
};

/// Entries of a page that are asked for.
const PAGE: usize = 1000;
/// Most pages of a list, against registries whose lists never end.
const MAX_PAGES: usize = 1000;
/// Most entries of a list.
const MAX_ENTRIES: usize = PAGE * MAX_PAGES;

#[derive(Deserialize)]
struct Tags {
    /// Some registries write `null` where there are none.
    tags: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Repositories {
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct Referrers {
    manifests: Vec<Descriptor>,
}

impl Repository {
    /// The tags of the repository. Each page has the time of a question.
    pub async fn tags(&self) -> Result<Vec<String>> {
        let first = self.call(Method::GET, &format!("tags/list?n={PAGE}"))?;
        self.pages(first, Access::Pull, |page: Tags| page.tags.unwrap_or_default())
            .await
    }

    /// The repositories of the registry, where it tells them.
    pub async fn catalogue(&self) -> Result<Vec<String>> {
        let uri = self
            .origin()
            .uri(&format!("/v2/_catalog?n={PAGE}"))
            .map_err(|_| self.malformed("a name that is none"))?;
        self.pages(Call::get(uri), Access::Catalogue, |page: Repositories| {
            page.repositories.unwrap_or_default()
        })
        .await
    }

    /// The manifests that refer to the one of that digest: signatures, lists of contents. Registries without the list have them under
    /// a tag that is made of the digest.
    pub async fn referrers(&self, digest: &str) -> Result<Vec<Descriptor>> {
        let first = self.call(Method::GET, &format!("referrers/{digest}"))?;
        match self.pages(first, Access::Pull, |page: Referrers| page.manifests).await {
            // What registries say that do not know the question differs.
            Err(Error::NotFound { .. } | Error::Unexpected { .. } | Error::Malformed { .. }) => {}
            other => return other,
        }
        match self.manifest(&digest.replacen(':', "-", 1)).await {
            Ok(manifest) => self.listed(&manifest),
            Err(Error::NotFound { .. }) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    fn listed(&self, manifest: &Manifest) -> Result<Vec<Descriptor>> {
        match manifest.document() {
            Some(Document::Index { manifests }) => Ok(manifests),
            _ => Err(self.malformed("something else than an index")),
        }
    }

    async fn pages<Page, Entry>(
        &self,
        first: Call,
        access: Access,
        entries: impl Fn(Page) -> Vec<Entry>,
    ) -> Result<Vec<Entry>>
    where
        Page: for<'text> Deserialize<'text>,
    {
        let mut all = Vec::new();
        let mut next = Some(first.uri);
        for _ in 0..MAX_PAGES {
            let Some(uri) = next else {
                return Ok(all);
            };
            let (page, following) = self.patiently(|| self.page(uri.clone(), access.clone())).await?;
            all.extend(entries(page));
            if all.len() > MAX_ENTRIES {
                break;
            }
            next = following;
        }
        Err(self.malformed("a list without end"))
    }

    async fn page<Page>(&self, uri: Uri, access: Access) -> Result<(Page, Option<Uri>)>
    where
        Page: for<'text> Deserialize<'text>,
    {
        let answer = self.ask(Call::get(uri.clone()), access).await?;
        let answer = self.expect(answer, StatusCode::OK, "list").await?;
        let following = match next_page(answer.headers()) {
            None => None,
            Some(link) => {
                let following = join(&uri, link).ok().filter(|following| self.origin().is_at(following));
                Some(following.ok_or_else(|| self.malformed("a list that goes on elsewhere"))?)
            }
        };
        let bytes = answer.bytes(MAX_DOCUMENT_BYTES).await?;
        let page = serde_json::from_slice(&bytes).map_err(|_| self.malformed("something else than a list"))?;
        Ok((page, following))
    }
}

/// The target of `Link: <target>; rel="next"`.
pub(crate) fn next_page(headers: &HeaderMap) -> Option<&str> {
    headers
        .get_all(LINK)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .find_map(|value| {
            let (target, parameters) = value.trim().strip_prefix('<')?.split_once('>')?;
            let is_next = parameters
                .split([';', ','])
                .any(|parameter| matches!(parameter.trim(), "rel=next" | "rel=\"next\""));
            is_next.then_some(target)
        })
}

#[cfg(test)]
mod tests;
