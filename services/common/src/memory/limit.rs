use std::fs;
use std::path::Path;

/// Returns the smallest of the machine's memory and the limits of the process's cgroups, in bytes; `u64::MAX` when none
/// can be read.
pub fn limit() -> u64 {
    limit_at(Path::new("/"))
}

fn limit_at(root: &Path) -> u64 {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let groups = read(&root.join("proc/self/cgroup"));
    let limits = groups.lines().filter_map(|line| {
        let (hierarchy, path) = line.split_once(':')?.1.split_once(':')?;
        let (mount, file) = match hierarchy {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if hierarchy.split(',').any(|controller| controller == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => return None,
        };
        // The limits of all parent groups apply. In a container the path may not exist: then the mount is the process's
        // own group.
        let mount = root.join(mount);
        let group = mount.join(path.trim_start_matches('/'));
        let around = group.ancestors().filter(|group| group.starts_with(&mount));
        around.filter_map(|group| read(&group.join(file)).trim().parse::<u64>().ok()).min()
    });
    let machine = read(&root.join("proc/meminfo"));
    let total = machine
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    limits.chain(total.map(|kilobytes| kilobytes * 1024)).min().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::directory;

    fn limit_with(files: &[(&str, &str)]) -> u64 {
        let root = directory();
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        limit_at(&root)
    }

    #[test]
    fn smallest_limit_applies() {
        let machine = ("proc/meminfo", "MemTotal:        8192 kB\nMemFree:         1 kB\n");
        assert_eq!(limit_with(&[]), u64::MAX);
        assert_eq!(limit_with(&[machine]), 8 << 20);
        let own = ("proc/self/cgroup", "0::/pod/gateway\n");
        let (pod, gateway) =
            (("sys/fs/cgroup/pod/memory.max", "4194304\n"), ("sys/fs/cgroup/pod/gateway/memory.max", "max\n"));
        assert_eq!(limit_with(&[machine, own, pod, gateway]), 4 << 20);
        assert_eq!(limit_with(&[machine, own, gateway]), 8 << 20);
    }

    #[test]
    fn container_reads_its_group_at_the_mount() {
        let first = ("proc/self/cgroup", "12:cpu,cpuacct:/docker/1\n4:memory:/docker/1\n0::/\n");
        assert_eq!(limit_with(&[first, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "1048576\n")]), 1 << 20);
        let second = ("proc/self/cgroup", "0::/../other\n");
        assert_eq!(limit_with(&[second, ("sys/fs/cgroup/memory.max", "2097152\n")]), 2 << 20);
    }

    #[test]
    fn this_machine_has_a_limit() {
        assert!((1 << 20..u64::MAX).contains(&limit()));
    }
}
