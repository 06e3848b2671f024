/* SPDX-License-Identifier: BSD-3-Clause */
/* doorbell_works.c - does the doorbell named by the argument work here? Exit code 0, or 1 and the reason. */
#include <shoal/doorbell.h>

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    char reason[256] = "no such kind";
    for (int kind = SHOAL_DOORBELL_URING; argc == 2 && kind <= SHOAL_DOORBELL_SEMAPHORE; kind++)
        if (strcmp(shoal_doorbell_kind_name(kind), argv[1]) == 0 &&
            shoal_doorbell_probe(kind, reason, sizeof reason) == 0)
            return 0;
    puts(reason);
    return 1;
}
