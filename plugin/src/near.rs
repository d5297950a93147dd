//! Names near a name that does not exist.

/// The names that were probably meant, nearest first, at most three.
pub(crate) fn nearest<'a>(wanted: &str, names: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let most = (wanted.chars().count() / 3).max(2);
    let mut near: Vec<(usize, &str)> = names
        .into_iter()
        .filter_map(|name| {
            let distance = if name.contains(wanted) || wanted.contains(name) {
                1
            } else {
                distance(wanted, name)
            };
            (distance <= most).then_some((distance, name))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Letters to insert, delete, replace or swap with their neighbour to make one text of the other.
fn distance(one: &str, other: &str) -> usize {
    let one: Vec<char> = one.chars().collect();
    let other: Vec<char> = other.chars().collect();
    let mut rows: Vec<Vec<usize>> = vec![(0..=other.len()).collect()];
    for row in 1..=one.len() {
        let mut current = vec![row];
        for column in 1..=other.len() {
            let differs = usize::from(one[row - 1] != other[column - 1]);
            let mut least = rows[row - 1][column - 1] + differs;
            least = least.min(rows[row - 1][column] + 1).min(current[column - 1] + 1);
            let is_swapped =
                row > 1 && column > 1 && one[row - 1] == other[column - 2] && one[row - 2] == other[column - 1];
            if is_swapped {
                least = least.min(rows[row - 2][column - 2] + 1);
            }
            current.push(least);
        }
        rows.push(current);
    }
    rows[one.len()][other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_nearest_first() {
        let names = ["web", "redis-1a2b3c4d", "postgres", "nginx-99999999", "wap"];
        assert_eq!(nearest("wbe", names), ["web", "wap"]);
        assert_eq!(nearest("redis", names), ["redis-1a2b3c4d"]);
        assert_eq!(nearest("completely-other", names), [""; 0]);
    }
}
