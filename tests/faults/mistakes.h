/*
 * mistakes.h: tables of changes to generated kernels (generated.h), and what the emulator, which
 * looks for races, has to say of each.
 */
#ifndef MISTAKES_H
#define MISTAKES_H

#include "generated.h"

#define IN_ORDER    "0"
#define BY_BLOCK    "2,quantum=block"
#define BRIEF_WAITS "3,waits=brief"

/* The kernels as they are run without a report under that schedule, which holds for a process. */
void expect_none(const char *schedule);

typedef struct mistake {
    const char *name;
    victim kernel;
    const char *from, *to;
    const char *said[2]; /* one is in the report: which, may depend on who comes first */
} mistake;

/* short_tensor: has a row too few, or NULL. */
void expect_report(const mistake *m, const char *short_tensor);
void expect_reports(const char *schedule, const mistake *mistakes, size_t count);
#define EXPECT_REPORTS(schedule, table)                                                            \
    expect_reports(schedule, table, sizeof(table) / sizeof(table)[0])

#define RACE(now, earlier) "race: " now " after " earlier
#define BULK_READ          "a bulk copy's read"
#define BULK_WRITE         "a bulk copy's write"
#define WGMMA_READ         "wgmma's read"
#define IN_FLIGHT          "no wgmma.wait_group covers that yet"
#define UNWRITTEN          "a read of memory that was never written"

#endif
