package engine
import ("testing";"os";"github.com/dogestry/dogestry/internal/enginetest")
func TestMain(m *testing.M){enginetest.Main(m)}
func TestProbe(t *testing.T){
 t.Setenv("TZ","Asia/Kolkata")
 e:=enginetest.StartFor(t,enginetest.Options{})
 ctx:=t.Context()
 e.LoadFor(t,enginetest.Hello)
 out,err:=e.Docker(ctx,nil,"build","-t","dogestry-test/built:1","/tmp/x20/ctx"); if err!=nil{t.Fatal(err,string(out))}
 f,_:=os.Create("/tmp/x20/tz.tar"); if err:=e.Save(ctx,f,"dogestry-test/built:1");err!=nil{t.Fatal(err)}; f.Close()
}
