//! Which arguments are names of something that can be looked up.

/// What an argument names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Kind {
    Prefetch,
    Node,
    Namespace,
    Pod,
    /// A Secret to pull images with.
    PullSecret,
    /// `TYPE/NAME`
    Workload,
    /// An image of a Pod or a Prefetch.
    Image,
    /// An image of a Prefetch.
    PrefetchedImage,
    Mirror,
    /// An image that has, or is to have, copies.
    MirroredImage,
    Context,
    Cluster,
    User,
    Component,
    File,
}

/// Verb (`*` is any), argument, what it names. Arguments that are not here are free text.
const KINDS: &[(&str, &str, Kind)] = &[
    ("*", "namespace", Kind::Namespace),
    ("*", "context", Kind::Context),
    ("*", "cluster", Kind::Cluster),
    ("*", "user", Kind::User),
    ("*", "kubeconfig", Kind::File),
    ("*", "files", Kind::File),
    ("*", "workloads", Kind::Workload),
    ("*", "nodes", Kind::Node),
    ("*", "components", Kind::Component),
    ("status", "names", Kind::Prefetch),
    ("status", "images", Kind::PrefetchedImage),
    ("refresh", "names", Kind::Prefetch),
    ("suspend", "names", Kind::Prefetch),
    ("resume", "names", Kind::Prefetch),
    ("delete", "names", Kind::Prefetch),
    ("prefetch", "name", Kind::Prefetch),
    ("prefetch", "images", Kind::Image),
    ("prefetch", "pull_secrets", Kind::PullSecret),
    ("allow-secret", "names", Kind::PullSecret),
    ("explain", "pods", Kind::Pod),
    ("mirror", "mirrored", Kind::Image),
    ("*", "mirrored", Kind::MirroredImage),
    ("*", "mirror_name", Kind::Mirror),
];

/// What an argument of a verb names.
pub(super) fn of(verb: &str, argument: &str) -> Option<Kind> {
    let row = KINDS
        .iter()
        .find(|(of, id, _)| [verb, "*"].contains(of) && *id == argument);
    row.map(|(_, _, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_argument_of_the_table_is_there() {
        let mut root = crate::command();
        root.build();
        for (verb, id, kind) in KINDS {
            let mut verbs = root
                .get_subcommands()
                .filter(|found| ["*", found.get_name()].contains(verb));
            let is_there = verbs.any(|verb| verb.get_arguments().any(|argument| argument.get_id() == id));
            assert!(is_there, "{verb} has no argument {id}, which {kind:?} was said of");
        }
    }

    #[test]
    fn free_text_is_nothing_to_look_up() {
        assert_eq!(of("prefetch", "timeout"), None);
        assert_eq!(of("status", "nodes"), Some(Kind::Node));
    }
}
