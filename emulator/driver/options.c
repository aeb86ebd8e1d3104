/*
 * options.c: reads the table options.def from the environment. cuInit calls it once. A value that
 * is not understood ends cuInit with one line on stderr: a device is never replaced by another.
 */
#include "driver/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEVICES 16
#define MAX_THREADS 1024

static bool reject(const char *variable, const char *value, const char *legal)
{
    fprintf(stderr, "libcuda (emulator): %s=%s is not valid: wanted %s\n", variable, value, legal);
    return false;
}

/* A whole decimal number in [0, limit]. */
static bool parse_number(uint64_t *out, const char *value, uint64_t limit)
{
    if (value[0] < '0' || value[0] > '9')
        return false;
    char *end = NULL;
    errno = 0;
    unsigned long long number = strtoull(value, &end, 10);
    if (errno != 0 || *end != '\0' || number > limit)
        return false;
    *out = number;
    return true;
}

static bool parse_device(front_options *out, const char *variable, const char *value)
{
    char id[32] = "";
    size_t length = strcspn(value, ":");
    if (length < sizeof id)
        memcpy(id, value, length);
    const emu_arch *arch = emu_arch_find(id);
    uint64_t count = 1;
    bool counted = value[length] != ':' ||
                   (parse_number(&count, value + length + 1, MAX_DEVICES) && count > 0);
    if (arch && counted) {
        out->arch = arch;
        out->device_count = (int)count;
        return true;
    }
    char legal[256] = "";
    size_t used = 0;
    for (int i = 0; (arch = emu_arch_at(i)) != NULL && used < sizeof legal; i++)
        used += (size_t)snprintf(legal + used, sizeof legal - used, "%s%s", i ? ", " : "one of ",
                                 arch->id);
    if (used < sizeof legal)
        snprintf(legal + used, sizeof legal - used, "; for several devices NAME:COUNT, 1 to %d",
                 MAX_DEVICES);
    return reject(variable, value, legal);
}

static bool parse_schedule(front_options *out, const char *variable, const char *value)
{
    return emu_schedule_read(&out->schedule, value) ||
           reject(variable, value, emu_schedule_legal());
}

static bool parse_threads(front_options *out, const char *variable, const char *value)
{
    uint64_t threads;
    if (!parse_number(&threads, value, MAX_THREADS))
        return reject(variable, value, "an integer from 0 (all cores) to 1024");
    out->threads = (int)threads;
    return true;
}

/* Words separated by commas, each of which switches a check on. */
static bool parse_checks(front_options *out, const char *variable, const char *value)
{
    for (const char *word = value; *word != '\0';) {
        size_t length = strcspn(word, ",");
        if (length != strlen("race") || strncmp(word, "race", length) != 0)
            return reject(variable, value, "words separated by commas, of: race");
        out->check_races = true;
        word += length + (word[length] == ',');
    }
    return true;
}

static bool parse_isa(front_options *out, const char *variable, const char *value)
{
    static const char *const words[] = {"avx512", "avx2", "plain"};
    if (value[0] == '\0')
        return true;
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strcmp(value, words[i]) == 0)
            out->isa = words[i];
    }
    if (out->isa) {
        /* Only a machine knows what this CPU can do. */
        emu_config config = {.arch = out->arch, .threads = 1, .isa = out->isa};
        emu_machine *machine = NULL;
        if (emu_machine_create(&machine, &config) == CUDA_SUCCESS) {
            emu_machine_destroy(machine);
            return true;
        }
    }
    return reject(variable, value, "avx512, avx2 or plain, and one that this CPU has");
}

/* After the device: "exact" is its numerics. */
static bool parse_numerics(front_options *out, const char *variable, const char *value)
{
    char legal[256] = "one of ";
    size_t used = strlen(legal);
    const char *word;
    for (int i = 0; (word = emu_numerics_at(i)) != NULL && used < sizeof legal; i++) {
        if (strcmp(value, word) == 0 && emu_numerics_known(word, out->arch)) {
            out->numerics = word;
            return true;
        }
        used += (size_t)snprintf(legal + used, sizeof legal - used, "%s%s", i ? ", " : "", word);
    }
    if (strcmp(value, "exact") == 0)
        snprintf(legal + used, sizeof legal - used, "; nobody has measured those of %s",
                 out->arch->id);
    return reject(variable, value, legal);
}

/* Any name: cuInit begins the trace, and goes on without one when it cannot. */
static bool parse_trace(front_options *out, const char *variable, const char *value)
{
    (void)variable;
    out->trace = value[0] == '\0' ? NULL : value;
    return true;
}

bool options_read(front_options *out)
{
    static const struct {
        const char *variable, *fallback;
        bool (*parse)(front_options *out, const char *variable, const char *value);
    } options[] = {
#define OPTION(variable, fallback, parse, meaning) {variable, fallback, parse},
#include "driver/options.def"
#undef OPTION
    };
    *out = (front_options){0};
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        const char *value = getenv(options[i].variable);
        if (!value || value[0] == '\0')
            value = options[i].fallback;
        if (!options[i].parse(out, options[i].variable, value))
            return false;
    }
    return true;
}
