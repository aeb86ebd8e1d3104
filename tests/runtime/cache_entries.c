/* cache_entries.c: the disk cache by itself: hits, misses and why, bad entries, locks. */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache.h"
#include "made_bundle.h"
#include "temporary_folder.h"

static const char source[] = "__global__ void f() {}";

static cache_key key_for(const char *toolchain, const char *target, const char *options,
                         const char *text)
{
    cache_key key;
    cr_assert_eq(cache_key_make(&key, toolchain, target, options, text, strlen(text)), MMLP_OK);
    return key;
}

static void store(const cache_roots *roots, const cache_key *key)
{
    cache_entry entry = {(char *)".version 9.0", 12, (char *)"\177ELF\0bytes", 10};
    cr_assert_eq(cache_store(roots, key, &entry), MMLP_OK, "%s", mmlp_last_error());
}

Test(cache, a_stored_entry_is_a_hit_with_the_same_bytes)
{
    char *folder = temporary_folder_make();
    cache_roots roots = {folder, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a -b", source);
    cache_entry found;
    char why[CACHE_WHY_BYTES];
    cr_expect_not(cache_lookup(&found, why, &roots, &key));
    cr_expect_str_eq(why, "no entry");
    store(&roots, &key);
    cr_assert(cache_lookup(&found, why, &roots, &key));
    cr_expect_str_eq(found.ptx, ".version 9.0");
    cr_expect_eq(found.ptx_bytes, 12);
    cr_expect_eq(found.cubin_bytes, 10);
    cr_expect_arr_eq(found.cubin, "\177ELF\0bytes", 10);
    cache_entry_free(&found);
    cache_key_free(&key);
    temporary_folder_remove(folder);
}

Test(cache, a_key_depends_on_toolchain_target_options_and_source)
{
    cache_key keys[] = {
        key_for("nvrtc 1", "sm_80", "-a -b", source),  key_for("nvrtc 2", "sm_80", "-a -b", source),
        key_for("nvrtc 1", "sm_90", "-a -b", source),  key_for("nvrtc 1", "sm_80", "-b -a", source),
        key_for("nvrtc 1", "sm_80", "-a -b", "other"),
    };
    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < i; j++)
            cr_expect_str_neq(keys[i].name, keys[j].name);
    }
    for (int i = 0; i < 5; i++)
        cache_key_free(&keys[i]);
}

Test(cache, a_folder_can_be_moved)
{
    char *folder = temporary_folder_make(), *moved = temporary_folder_make();
    cache_roots roots = {folder, NULL}, roots_moved = {moved, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    store(&roots, &key);
    cr_assert_eq(rename(folder, moved), 0);
    cache_entry found;
    char why[CACHE_WHY_BYTES];
    cr_expect(cache_lookup(&found, why, &roots_moved, &key), "%s", why);
    cache_entry_free(&found);
    cache_key_free(&key);
    temporary_folder_remove(moved);
    free(folder);
}

Test(cache, an_entry_with_any_changed_byte_is_a_miss_and_is_removed)
{
    char *folder = temporary_folder_make();
    cache_roots roots = {folder, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    char name[64], why[CACHE_WHY_BYTES];
    snprintf(name, sizeof name, "%s.kernel", key.name);
    store(&roots, &key);
    size_t count;
    char *bytes = read_whole_file(folder, name, &count);
    cache_entry found;
    for (size_t i = 0; i < count; i++) {
        bytes[i] ^= 1;
        write_file(folder, name, bytes, count);
        cr_expect_not(cache_lookup(&found, why, &roots, &key), "byte %zu", i);
        cr_expect_not(cache_lookup(&found, why, &roots, &key));
        cr_expect_str_eq(why, "no entry");
        bytes[i] ^= 1;
    }
    for (size_t i = 0; i < count; i++) {
        write_file(folder, name, bytes, i);
        cr_expect_not(cache_lookup(&found, why, &roots, &key), "cut at byte %zu", i);
    }
    write_file(folder, name, bytes, count);
    cr_expect(cache_lookup(&found, why, &roots, &key));
    cache_entry_free(&found);
    free(bytes);
    cache_key_free(&key);
    temporary_folder_remove(folder);
}

Test(cache, an_entry_of_another_key_under_this_name_is_a_miss)
{
    char *folder = temporary_folder_make();
    cache_roots roots = {folder, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    cache_key other = key_for("nvrtc 2", "sm_80", "-a", source);
    store(&roots, &other);
    char from[4200], to[4200], why[CACHE_WHY_BYTES];
    snprintf(from, sizeof from, "%s/%s.kernel", folder, other.name);
    snprintf(to, sizeof to, "%s/%s.kernel", folder, key.name);
    cr_assert_eq(rename(from, to), 0);
    cache_entry found;
    cr_expect_not(cache_lookup(&found, why, &roots, &key));
    cr_expect_str_eq(why, "the entry was made of something else");
    cache_key_free(&key);
    cache_key_free(&other);
    temporary_folder_remove(folder);
}

Test(cache, the_readonly_root_is_read_and_never_changed)
{
    char *folder = temporary_folder_make(), *image = temporary_folder_make();
    cache_roots image_only = {image, NULL}, roots = {folder, image};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    cache_entry found;
    char why[CACHE_WHY_BYTES], name[64];
    store(&image_only, &key);
    cr_expect(cache_lookup(&found, why, &roots, &key));
    cache_entry_free(&found);
    snprintf(name, sizeof name, "%s.kernel", key.name);
    write_file(image, name, "bad", 3);
    cr_expect_not(cache_lookup(&found, why, &roots, &key));
    size_t count;
    free(read_whole_file(image, name, &count));
    cr_expect_eq(count, 3);
    cache_key_free(&key);
    temporary_folder_remove(folder);
    temporary_folder_remove(image);
}

Test(cache, a_store_into_a_folder_that_cannot_be_made_names_it)
{
    char *folder = temporary_folder_make();
    write_file(folder, "file", "x", 1);
    char below[4200], message[4400];
    snprintf(below, sizeof below, "%s/file/cache", folder);
    cache_roots roots = {below, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    cache_entry entry = {(char *)"p", 1, (char *)"c", 1};
    cr_expect_eq(cache_store(&roots, &key, &entry), MMLP_ERROR_IO);
    snprintf(message, sizeof message, "%s: cannot create: Not a directory", below);
    cr_expect_str_eq(mmlp_last_error(), message);
    cache_key_free(&key);
    temporary_folder_remove(folder);
}

Test(cache, a_lock_keeps_others_of_the_same_key_out_until_their_patience_ends)
{
    char *folder = temporary_folder_make();
    cache_roots roots = {folder, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    cache_key other = key_for("nvrtc 2", "sm_80", "-a", source);
    int held = cache_lock(&roots, &key, 0);
    cr_assert_geq(held, 0);
    cr_expect_lt(cache_lock(&roots, &key, 0.1), 0);
    int second = cache_lock(&roots, &other, 0);
    cr_expect_geq(second, 0, "another key has another lock");
    cache_unlock(second);
    cache_unlock(held);
    held = cache_lock(&roots, &key, 0);
    cr_expect_geq(held, 0);
    cache_unlock(held);
    cache_key_free(&key);
    cache_key_free(&other);
    temporary_folder_remove(folder);
}

Test(cache, a_lock_of_a_process_that_died_is_free)
{
    char *folder = temporary_folder_make();
    cache_roots roots = {folder, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    pid_t child = fork();
    if (child == 0)
        _exit(cache_lock(&roots, &key, 0) >= 0 ? 0 : 1);
    int status;
    waitpid(child, &status, 0);
    cr_assert_eq(status, 0);
    int held = cache_lock(&roots, &key, 0);
    cr_expect_geq(held, 0);
    cache_unlock(held);
    cache_key_free(&key);
    temporary_folder_remove(folder);
}

Test(cache, readers_see_whole_entries_while_a_writer_replaces_them)
{
    char *folder = temporary_folder_make();
    cache_roots roots = {folder, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    store(&roots, &key);
    pid_t child = fork();
    if (child == 0) {
        cache_entry entry = {(char *)"p", 1, (char *)"c", 1};
        for (int i = 0; i < 200; i++)
            cache_store(&roots, &key, &entry);
        _exit(0);
    }
    int status = 0;
    while (waitpid(child, &status, WNOHANG) == 0) {
        cache_entry found;
        char why[CACHE_WHY_BYTES];
        cr_expect(cache_lookup(&found, why, &roots, &key), "%s", why);
        cache_entry_free(&found);
    }
    cache_key_free(&key);
    temporary_folder_remove(folder);
}

Test(cache, nothing_temporary_is_left_behind)
{
    char *folder = temporary_folder_make();
    cache_roots roots = {folder, NULL};
    cache_key key = key_for("nvrtc 1", "sm_80", "-a", source);
    store(&roots, &key);
    store(&roots, &key);
    DIR *entries = opendir(folder);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;)
        count += entry->d_name[0] != '.';
    closedir(entries);
    cr_expect_eq(count, 1);
    cache_key_free(&key);
    temporary_folder_remove(folder);
}
