/* lock.h - huggingface_hub's locks: while a process has one, it alone downloads that blob.
 * An flock on CACHE/.locks/models--OWNER--NAME/ETAG.lock, which stays when it is given back
 * (filelock's UnixFileLock). */
#ifndef HUB_LOCK_H
#define HUB_LOCK_H

/* Tries to take the lock of a blob, without waiting. Returns 1 with a descriptor to close later, 0
 * when another process has it, -1 with a message. Where the file system has no locks, everyone gets
 * it: then two processes may download the same file, and the hash still guards what comes out. */
int lock_try(const char *repo_folder, const char *etag, int *fd);

#endif
