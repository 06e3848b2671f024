/* SPDX-License-Identifier: BSD-3-Clause */
#include "support.h"

#include <shoal/shoal.h>

#include <errno.h>
#include <limits.h>
#include <stdio.h>

static void every_error_has_a_sentence(void)
{
    CU_ASSERT_STRING_EQUAL(shoal_strerror(-EDQUOT), shoal_strerror(EDQUOT));
    CU_ASSERT_STRING_EQUAL(shoal_strerror(-12345), "unknown error");
    CU_ASSERT_STRING_EQUAL(shoal_strerror(INT_MIN), "unknown error");
    const int errors[] = { EPERM, ENOENT, ESRCH, EINTR, EAGAIN, ENOMEM, EBUSY, EEXIST, EINVAL, ENFILE, EMFILE, ENOSPC,
                           EPIPE, ENOSYS, ENOTSUP, EPROTO, EBADMSG, EMSGSIZE, ETIMEDOUT, ESTALE, EUCLEAN, EDQUOT,
                           E2BIG };
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++)
        CU_ASSERT_STRING_NOT_EQUAL(shoal_strerror(-errors[i]), "unknown error");
}

static void the_version_is_that_of_the_header(void)
{
    char numbers[32];
    CU_ASSERT_STRING_EQUAL(shoal_version(), SHOAL_VERSION);
    snprintf(numbers, sizeof(numbers), "%d.%d.%d", SHOAL_VERSION_MAJOR, SHOAL_VERSION_MINOR, SHOAL_VERSION_PATCH);
    CU_ASSERT_STRING_EQUAL(shoal_version(), numbers);
}

static const struct test tests[] = {
    { "every error of the library has a sentence of its own", every_error_has_a_sentence },
    { "the version is that of the header", the_version_is_that_of_the_header },
};

int main(void)
{
    return test_main("error", tests, TEST_COUNT(tests));
}
