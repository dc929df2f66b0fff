/* A PKCS#11 module in front of another one (REAL_MODULE), which does what the file SHIM_PLAN says:
 *   <function> rv <code>     the function returns this code and does nothing
 *   C_GenerateKey weak       keys are made extractable
 *   C_Encrypt iv             the token makes the IV itself and writes it where the caller's was
 *   C_GetSlotInfo hardware   the slot says that it is one of a hardware module
 *   * exit <n>               the process ends before the n-th call from the start
 * and appends the name of each call to SHIM_CALLS. Only what the tests need is here; the layout is that of PKCS#11 2.40. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ul;
typedef ul (*fn)(ul, ul, ul, ul, ul);
struct list { unsigned char version[2]; fn f[68]; };
struct attribute { ul type; void *value; ul length; };
struct mechanism { ul type; void *parameter; ul length; };
struct gcm { unsigned char *iv; ul iv_len, iv_bits; void *aad; ul aad_len, tag_bits; };
struct slot_info { unsigned char text[96]; ul flags; };

static struct list *real, ours;
static ul calls;
static unsigned char own_iv[12] = "token's own!";

static int planned(const char *name, char *what, unsigned *code) {
    FILE *plan = fopen(getenv("SHIM_PLAN"), "r");
    char who[64];
    int found = 0;
    *code = 0;
    while (plan && fscanf(plan, "%63s %15s %x", who, what, code) >= 2)
        if (!strcmp(who, name) || !strcmp(who, "*")) { found = 1; break; }
    if (plan) fclose(plan);
    if (!found) *what = 0;
    return found;
}

static ul call(int index, const char *name, ul a, ul b, ul c, ul d, ul e) {
    char what[16] = "";
    unsigned code;
    FILE *log = fopen(getenv("SHIM_CALLS"), "a");
    if (log) { fprintf(log, "%s\n", name); fclose(log); }
    calls++;
    if (planned(name, what, &code)) {
        if (!strcmp(what, "rv")) return code;
        if (!strcmp(what, "exit") && calls == code) _exit(9);
        if (!strcmp(what, "weak")) {
            struct attribute *template = (struct attribute *)c;
            static unsigned char yes = 1;
            for (ul i = 0; i < d; i++)
                if (template[i].type == 0x162) template[i].value = &yes;
        }
    }
    if (index == 29 && !strcmp(what, "")) {
        unsigned ignored;
        char encrypt[16] = "";
        if (planned("C_Encrypt", encrypt, &ignored) && !strcmp(encrypt, "iv"))
            memcpy(((struct gcm *)((struct mechanism *)b)->parameter)->iv, own_iv, sizeof own_iv);
    }
    ul rv = real->f[index](a, b, c, d, e);
    if (!strcmp(what, "hardware")) ((struct slot_info *)b)->flags |= 4;
    return rv;
}

#define WRAP(index, name) \
    static ul w##index(ul a, ul b, ul c, ul d, ul e) { return call(index, name, a, b, c, d, e); }
WRAP(4, "C_GetSlotList")
WRAP(5, "C_GetSlotInfo")
WRAP(12, "C_OpenSession")
WRAP(13, "C_CloseSession")
WRAP(18, "C_Login")
WRAP(20, "C_CreateObject")
WRAP(22, "C_DestroyObject")
WRAP(24, "C_GetAttributeValue")
WRAP(26, "C_FindObjectsInit")
WRAP(27, "C_FindObjects")
WRAP(29, "C_EncryptInit")
WRAP(30, "C_Encrypt")
WRAP(33, "C_DecryptInit")
WRAP(34, "C_Decrypt")
WRAP(58, "C_GenerateKey")

ul C_GetFunctionList(struct list **out) {
    void *library = dlopen(getenv("REAL_MODULE"), RTLD_NOW);
    ul (*get)(struct list **) = library ? (ul (*)(struct list **))dlsym(library, "C_GetFunctionList") : 0;
    if (!get || get(&real)) return 5;
    ours = *real;
#define USE(index) ours.f[index] = w##index;
    USE(4) USE(5) USE(12) USE(13) USE(18) USE(20) USE(22) USE(24) USE(26) USE(27) USE(29) USE(30) USE(33) USE(34) USE(58)
    *out = &ours;
    return 0;
}
